"""A real SLURM cluster on one machine, in a folder of its own: munge, a controller, two nodes.

Runs as root without systemd, on free ports, with its own key and slurm.conf, so that it
minds no other SLURM on the host and no other minds it. There is no accounting: jobs are
read from the controller, which remembers them all.

    with Cluster(folder) as cluster:
        subprocess.run(["sbatch", ...], env=os.environ | cluster.variables)
        cluster.jobs()
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from datetime import datetime
from pathlib import Path

PROGRAMS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm"}
PATIENCE = 300  # seconds that anything may take
GPUS = 2

# A CPU node and a GPU node with a partition each, and `urgent`, whose jobs push those of
# `gpu` back into the queue. The nodes claim more than this machine has: whoever submits
# bounds the load. MinJobAge keeps jobs for the tests to read; a job that was queued again
# starts after cred_expire, two minutes by default.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=bf_interval=5,sched_interval=5,batch_sched_delay=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=3
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed
JobSubmitPlugins=lua
JobRequeue=1
KillWait=5
MinJobAge=86400
ReturnToService=2
SlurmctldTimeout=15
SlurmdTimeout=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=DEFAULT CPUs=8 RealMemory=32000
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} Gres=gpu:{gpus}
PartitionName=cpu Nodes=cpu1 Default=YES
PartitionName=gpu Nodes=gpu1 PriorityTier=1
PartitionName=urgent Nodes=gpu1 PriorityTier=20 PreemptMode=OFF
"""

# What a site lets through. slurmctld reads it beside slurm.conf, again whenever it is newer.
JOB_SUBMIT = """\
function slurm_job_submit(job, partitions, user)
{rules}
    return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end
"""

# Python reads this first on the nodes, which have no internet: a rule's script gets a network
# namespace of its own with nothing in it, and leaves word.
NO_NETWORK = """\
import ctypes
import sys
from pathlib import Path

if any(".snakemake/scripts/" in word for word in sys.orig_argv):
    CLONE_NEWNET = 0x40000000
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        sys.exit("no network namespace of its own")
    with Path(__file__).with_name("entered").open("a") as told:
        told.write(" ".join(sys.orig_argv) + "\\n")
"""


class Slurm:
    """A cluster as its users see it: the one that this machine belongs to.

    Has `variables`: what the environment of a client needs besides.
    """

    variables = {}

    def run(self, program, *arguments, check=True):
        """Run a program of SLURM's and return what it printed."""
        result = subprocess.run(
            [program, *map(str, arguments)],
            env=os.environ | self.variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if check and result.returncode:
            raise RuntimeError(f"{program} {arguments}: {result.stderr.strip()}")
        return result.stdout

    def jobs(self, folder=None):
        """Return the user's jobs, oldest first, each as `job`; those submitted in `folder`."""
        lines = self.run("squeue", "--me", "--states=all", "-h", "-o", "%A %Z").splitlines()
        found = [line.split(" ", 1) for line in lines]
        numbers = {int(number) for number, place in found if folder in (None, Path(place))}
        jobs = [self.job(number) for number in sorted(numbers)]
        return [job for job in jobs if job]

    def job(self, number):
        """Return what `scontrol --detail show job` says, {key: text}; empty if forgotten.

        The executor's `Comment` says what a job is: `rule_RULE_wildcards_VALUES`.
        """
        return _record(
            self.run("scontrol", "--detail", "--oneliner", "show", "job", number, check=False)
        )

    def node(self, name):
        return _record(self.run("scontrol", "--oneliner", "show", "node", name))


class Cluster(Slurm):
    """The cluster whose daemons live in `folder`, children of this process.

    They end with it, even when it is killed.
    """

    nodes = ("cpu1", "gpu1")

    def __init__(self, folder):
        self.folder = Path(folder)
        self.conf = self.folder / "slurm.conf"
        self.variables = {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }
        self.daemons = {}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self):
        """Start everything; return when jobs can run."""
        self._write_files()
        socket_file = self.folder / "munge.socket"
        self._start(
            "munged",
            ["munged", "--foreground", "--force", "--key-file", self.folder / "munge.key"]
            + ["--socket", socket_file, "--pid-file", self.folder / "munged.pid"]
            + ["--seed-file", self.folder / "munged.seed"],
            ready=socket_file.exists,
        )
        self.start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)

    def stop(self):
        """End all processes of this cluster and no other, whatever state it is in."""
        for name in list(self.daemons):
            self._end(name, signal.SIGTERM)
        _wait_until(self._none_left, "the end of the cluster's processes")

    def _none_left(self):
        """Kill jobs and whoever waits for them, and say whether there were none any more."""
        left = self.processes()
        for process in left:
            _signal(process, signal.SIGKILL)
        return not left

    def start_accounting(self):
        """Here there is none."""

    def start_controller(self):
        """Start slurmctld; return when it answers. It remembers what it knew before."""
        self._start(
            "slurmctld",
            ["slurmctld", "-D", "-f", self.conf],
            ready=lambda: "is UP" in self.run("scontrol", "ping", check=False),
        )

    def stop_controller(self):
        """Stop slurmctld as for maintenance: it writes down what it knows."""
        self._end("slurmctld", signal.SIGTERM)

    def start_node(self, node):
        """Start a node's slurmd; return when it has registered and can take jobs."""
        since = datetime.now().replace(microsecond=0)

        def registered():
            found = self.node(node)
            in_service = found["State"] in ("IDLE", "MIXED", "ALLOCATED")
            return in_service and since <= _time(found["SlurmdStartTime"])

        self._start(node, ["slurmd", "-D", "-f", self.conf, "-N", node], ready=registered)

    @contextlib.contextmanager
    def configured(self, **values):
        """Have other values in slurm.conf for a while."""
        before = self.conf.read_text()
        after = before
        for key, value in values.items():
            after = re.sub(f"^{key}=.*$", f"{key}={value}", after, flags=re.M)
        assert after != before
        self.conf.write_text(after)
        try:
            self.run("scontrol", "reconfigure")
            yield
        finally:
            self.conf.write_text(before)
            self.run("scontrol", "reconfigure")

    @contextlib.contextmanager
    def refusing(self, rules):
        """Refuse some submissions for a while, by lines of Lua that return an error."""
        self._let_through(rules)
        try:
            yield
        finally:
            self._let_through("")

    def _let_through(self, rules):
        script = self.folder / "job_submit.lua"
        script.write_text(JOB_SUBMIT.format(rules=rules))
        newer = time.time() + 3600  # than the last reading, to the second
        os.utime(script, (newer, newer))

    def kill_node(self, node):
        """Kill a node's slurmd as a crash does; the processes of its jobs live on."""
        self._end(node, signal.SIGKILL)

    def processes(self):
        """Return the ids of all processes of this cluster: daemons, steps, jobs, clients.

        They have its slurm.conf in their environment, as no other process does.
        """
        mark = f"SLURM_CONF={self.conf}".encode()
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):
                    found.append(int(environ.parent.name))
            except OSError:  # ended meanwhile
                continue
        return found

    def without_network(self):
        """Return the commands of all rules that ran on a node, each without any network."""
        told = self.folder / "nodes" / "entered"
        return told.read_text().splitlines() if told.exists() else []

    def _write_files(self):
        for name in ("bin", "nodes", "state", "spool"):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        self.conf.write_text(
            SLURM_CONF.format(host=host, ports=_free_ports(3), folder=self.folder, gpus=GPUS)
        )
        for gpu in range(GPUS):  # a GPU must be a character device; this one is /dev/null
            os.mknod(self.folder / f"nvidia{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.folder / "gres.conf").write_text(
            f"NodeName=gpu1 Name=gpu File={self.folder}/nvidia[0-{GPUS - 1}]\n"
        )
        self._let_through("")
        (self.folder / "nodes" / "sitecustomize.py").write_text(NO_NETWORK)
        # The executor drops SLURM_CONF before the srun inside a job, which would then look
        # for another cluster.
        srun = self.folder / "bin" / "srun"
        srun.write_text(
            f"#!/bin/sh\nexport SLURM_CONF={self.conf} PYTHONPATH={self.folder}/nodes\n"
            f'exec {shutil.which("srun")} "$@"\n'
        )
        srun.chmod(0o755)

    def _start(self, name, command, ready):
        log = self.folder / f"{name}.log"
        with log.open("a") as stream:
            self.daemons[name] = daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *map(str, command)],
                env=os.environ | self.variables,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        _wait_until(lambda: daemon.poll() is not None or ready(), f"{name} to be ready")
        if daemon.poll() is not None:
            raise RuntimeError(f"{name} ended at once:\n{log.read_text()[-2000:]}")

    def _end(self, name, number):
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:  # a slurmd waits for steps that do not end
            daemon.kill()
            daemon.wait(PATIENCE)


def rule(job):
    """Return the rule of a job that the executor submitted."""
    return re.match(r"rule_(\w+?)(_wildcards_|$)", job["Comment"])[1]


def _record(text):
    """Parse one line of `KEY=text KEY=text`, where a text may hold blanks."""
    return dict(re.findall(r"(\S+?)=(.*?)(?=\s+\S+?=|\s*$)", text))


def _time(text):
    return datetime.min if text in ("None", "Unknown") else datetime.fromisoformat(text)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _signal(process, number):
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def _wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE} s for {what}")
        time.sleep(0.1)
