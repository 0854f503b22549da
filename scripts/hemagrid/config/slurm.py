"""What a SLURM cluster allows, and what it says about waiting jobs.

Where there is no SLURM, or it does not answer, nothing is known and nothing is limited.
"""

import functools
import getpass
import re
import subprocess

PATIENCE = 20  # seconds for an answer of SLURM
LONGEST_PAUSE = 180  # seconds between two looks at the queue, of the executor 2.8
QUEUE = ("slurm_partition", "slurm_account", "qos")  # resources that say where a job waits
_OF_QOS = "Name,Flags,MaxWall,MaxSubmitPU,MaxSubmitPA,GrpSubmit,MaxTRES,MaxTRESPU,GrpTRES"
_OF_ACCOUNT = "Account,DefaultQOS,QOS,MaxWall,MaxSubmit,GrpSubmit,MaxTRES,GrpTRES"
_MB = {"": 1, "M": 1, "G": 1024, "T": 1024**2}
NEVER = "never"
# What the reasons for which a job waits mean; the first that fits.
_MEANINGS = {
    r"PartitionTimeLimit|PartitionNodeLimit|PerJob|PerNode|QOSMin|BadConstraints|not permitted"
    r"|AccountNotAllowed|QOSNotAllowed|InvalidAccount|InvalidQOS|DependencyNever": NEVER,
    "Minutes": "the time granted to your account or QOS is used up: ask your site",
    "PerUser|AssocMax": "until other jobs of yours end; for ever if there are none",
    "PerAccount|Grp": "until other jobs of your account or QOS end; for ever if there are none",
    "Held": "until you call scontrol release, or your site does",
    "[Mm]aint": "until that is over; a job of less runtime may fit before: scontrol show res",
    "ReqNodeNotAvail|Reserv": "nodes are down or kept for others: scontrol show res",
    "PartitionDown|PartitionInactive": "until your site opens the partition",
    "BeginTime": "queued again, after a pause",
}


@functools.cache
def _ask(*command):
    """Return the lines that a program prints; none if it is missing, fails or is silent."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.splitlines() if said.returncode == 0 else []


def limits(partition="", account="", qos=""):
    """Return what one job may ask for at most, as far as it is known.

    Args:
        partition: Name of the partition, or several with commas; empty for the default.
        account: Name of the account; empty for the default.
        qos: Name of the QOS; empty for the default.

    Returns:
        {key: (amount, what sets it, such as "partition gpu")}, each only if there is a limit.
        Keys are `runtime` in minutes, `mem_mb`, `gpu`, and `queued`, the jobs that a user may
        have in the queue.
    """
    found = _of_partition(partition)
    for key, limit in _of_managers(partition, account, qos).items():
        found[key] = min(limit, found.get(key, limit))
    return found


def refusal(partition="", account="", qos=""):
    """Say which account or QOS SLURM does not take, or None as far as it is known.

    Args:
        partition: As for `limits`.
        account: As for `limits`.
        qos: As for `limits`.
    """
    mine = _associations()
    account, qos = _chosen(account, qos)
    if account not in mine:
        return f"account {account} is none of yours ({', '.join(mine)})" if mine else None
    if qos not in mine[account]["QOS"].split(","):
        return f"account {account} may use QOS {mine[account]['QOS']}, not {qos}"
    most, by = limits(partition, account, qos).get("queued", (1, None))
    if not most:
        return f"{by} takes no jobs (MaxSubmit is 0)"
    for row in _rows_of(partition):
        for kind, name in {"Accounts": account, "Qos": qos}.items():
            allowed, denied = row.get(f"Allow{kind}", "ALL"), row.get(f"Deny{kind}", "")
            if name in denied.split(",") or allowed != "ALL" and name not in allowed.split(","):
                key = f"Deny{kind}={denied}" if denied else f"Allow{kind}={allowed}"
                return f"partition {row['PartitionName']} has {key}, and it asks for {name}"
    return None


def _of_partition(partition):
    rows = _rows_of(partition)
    by = f"partition {partition or '(the default one)'}"
    found = {}
    times = [_minutes(row.get("MaxTime", "")) for row in rows]
    if times and None not in times:
        found["runtime"] = max(times), by
    memory = []
    for row in rows:
        of_nodes = _ask("sinfo", "--all", "-h", "-e", "-p", row["PartitionName"], "-o", "%m")
        amounts = [int(text) for text in of_nodes if text.isdigit()]
        if (allowed := row.get("MaxMemPerNode", "")).isdigit():
            amounts = [min(amount, int(allowed)) for amount in amounts or [int(allowed)]]
        memory += amounts
    if memory:
        found["mem_mb"] = max(memory), by
    return found


def _of_managers(partition, account, qos):
    """Return the limits of QOS and account: a partition's QOS goes first, the account last."""
    account, qos = _chosen(account, qos)
    known = {row["Name"]: row for row in _managed("qos", _OF_QOS)}
    partitions = {row.get("QoS") for row in _rows_of(partition)}
    over = list(partitions) if len(partitions) == 1 else []
    names = (
        [qos, *over] if "OverPartQOS" in known.get(qos, {}).get("Flags", "") else [*over, qos]
    )
    layers = [_amounts([known[name]], f"QOS {name}") for name in names if name in known]
    if account in _associations():
        shared = _managed("assoc", _OF_ACCOUNT, f"account={account}", "user=")
        layers.append(_amounts([_associations()[account], *shared], f"account {account}"))
    return {key: limit for layer in reversed(layers) for key, limit in layer.items()}


def _amounts(rows, by):
    """Return the least limits in rows of sacctmgr's, as `limits` does."""
    cells = [cell for row in rows for cell in row.items() if cell[1]]
    resources = ",".join(text for column, text in cells if "TRES" in column)
    memory = re.findall(r"\bmem=(\d+)([MGT]?)", resources)
    found = {
        "runtime": [_minutes(text) for column, text in cells if column == "MaxWall"],
        "mem_mb": [int(amount) * _MB[unit] for amount, unit in memory],
        "gpu": [int(count) for count in re.findall(r"gres/gpu=(\d+)", resources)],
        "queued": [int(count) for column, count in cells if "Submit" in column],
    }
    return {key: (min(amounts), by) for key, amounts in found.items() if amounts}


def _chosen(account, qos):
    """Return the account and QOS of a job, with the defaults of this user."""
    if not account:
        of_user = _managed("user", "DefaultAccount", getpass.getuser())
        account = of_user[0]["DefaultAccount"] if of_user else None
    return account, qos or _associations().get(account, {}).get("DefaultQOS") or "normal"


def _associations():
    """Return {account: row of sacctmgr's} of this user on this cluster."""
    rows = _managed("assoc", _OF_ACCOUNT, f"user={getpass.getuser()}")
    return {row["Account"]: row for row in rows}


def _managed(what, columns, *words):
    """Return what sacctmgr shows, as dicts."""
    if what == "assoc":
        cluster = (re.match(r"ClusterName\s*=\s*(\S+)", line) for line in _configuration())
        words += tuple(f"cluster={found[1]}" for found in cluster if found)
    names = columns.split(",")
    lines = _ask("sacctmgr", "-nP", "show", what, *words, f"format={columns}")
    rows = [line.split("|") for line in lines]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def _configuration():
    return _ask("scontrol", "show", "config")


def _rows_of(partition):
    """Return what SLURM says of one or more partitions, as dicts."""
    wanted = partition.split(",")
    shown = _ask("scontrol", "--all", "show", "partition", "--oneliner")
    rows = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown]
    return [
        row
        for row in rows
        if row.get("PartitionName") in wanted or not partition and row.get("Default") == "YES"
    ]


def _minutes(text):
    """Return the minutes in "1-12:00:00" or "03:00:00"; None for UNLIMITED."""
    time = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    if not time:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in time.groups())
    return 60 * (24 * days + hours) + minutes


def pending(folder):
    """Return why jobs wait that were submitted in a folder.

    Args:
        folder: Folder of the study.

    Returns:
        {comment of the job: (its number, reason, what that means)}. The executor's comment is
        `rule_RULE_wildcards_VALUES`. The meaning is empty where nothing is to say.
    """
    found = {}
    words = ("squeue", "--all", "--me", "--states=PENDING")  # all: hidden partitions, too
    for line in _ask(*words, "-h", "-o", "%A|%r|%k|%Z"):
        number, reason, comment, place = (line.split("|", 3) + [""] * 3)[:4]
        if place == str(folder):
            meant = (text for known, text in _MEANINGS.items() if re.search(known, reason))
            found[comment] = (number, reason, next(meant, ""))
    return found


def status_problem(settings):
    """Return what is wrong with how Snakemake asks for the state of jobs, or None.

    Its executor takes sacct in place of squeue while the controller does not answer, and where
    it forgets jobs within three looks. It waits for ever for one that is forgotten between two.

    Args:
        settings: Those of the executor, with `status_command` and
            `init_seconds_before_status_checks`.
    """
    if getattr(settings, "status_command", None) != "squeue":
        return None
    seconds = settings.init_seconds_before_status_checks
    known = [re.match(r"MinJobAge\s*=\s*(\d+)", line) for line in _configuration()]
    age = next((int(line[1]) for line in known if line), None)
    if age is None:
        return (
            "scontrol show config: found no MinJobAge, so the executor will ask sacct in place "
            "of squeue until the controller answers"
        )
    longest = max(3 * seconds, LONGEST_PAUSE)
    if age >= longest:
        return None
    return (
        f"the controller forgets a job {age} s after its end (MinJobAge), and the executor "
        f"looks at the queue every {seconds} to {LONGEST_PAUSE} s: it can miss how a job ended "
        "and wait for ever. In the profile, write slurm-status-command: sacct; where there is "
        f"no accounting, ask for a MinJobAge of {longest}"
    )
