"""A cluster as sites have it: users, accounts and limits, which slurmdbd keeps in MariaDB.

    with AccountedCluster(folder) as cluster:
        cluster.manage("add", "account", "lab")

All runs as root in the cluster's folder. Only slurmdbd listens on a network, on 127.0.0.1.
"""

import contextlib
import re
import signal
import subprocess

from .cluster import Cluster, _free_ports

PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}

SLURMDBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageUser=root
StorageLoc=accounting
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
"""


class AccountedCluster(Cluster):
    """A cluster with accounting, whose limits are enforced."""

    def start_accounting(self):
        """Start the database and slurmdbd, and make the cluster known to it."""
        database = self.folder / "mariadb"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={database}"],
            check=True,
            capture_output=True,
        )
        place = database / "socket"
        self.variables["MYSQL_UNIX_PORT"] = str(place)
        self._start(
            "mariadbd",
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={database}"]
            + ["--skip-networking", f"--socket={place}"],
            ready=place.exists,
        )
        self.start_slurmdbd()
        self.manage("add", "cluster", "test")

    def start_slurmdbd(self):
        """Start slurmdbd; return when it answers."""
        self._start(
            "slurmdbd",
            ["slurmdbd", "-D"],
            ready=lambda: "ControlHost" in self.run("sacctmgr", "list", "cluster", check=False),
        )

    def stop_slurmdbd(self):
        """Stop slurmdbd as for maintenance."""
        self._end("slurmdbd", signal.SIGTERM)

    def manage(self, *words):
        """Change accounts, users or QOS."""
        self.run("sacctmgr", "--immediate", *words)

    @contextlib.contextmanager
    def limited(self, kind, name, **limits):
        """Set limits of an account or a QOS for a while, such as MaxTRES="gres/gpu=1"."""
        none = {key: re.sub(r"\d+$", "-1", str(value)) for key, value in limits.items()}
        self.manage("modify", kind, name, "set", *map("=".join, limits.items()))
        try:
            yield
        finally:
            self.manage("modify", kind, name, "set", *map("=".join, none.items()))

    def _write_files(self):
        super()._write_files()
        (port,) = _free_ports(1)
        conf = self.conf.read_text()
        none = "AccountingStorageType=accounting_storage/none\n"
        assert none in conf
        self.conf.write_text(
            conf.replace(none, ACCOUNTING.format(port=port, folder=self.folder))
        )
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(SLURMDBD_CONF.format(port=port, folder=self.folder))
        dbd.chmod(0o600)
