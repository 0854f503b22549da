"""What a SLURM cluster allows, and what it says about waiting jobs.

Where there is no SLURM, or it does not answer, nothing is known and nothing is limited.
"""

import functools
import getpass
import re
import subprocess

PATIENCE = 20  # seconds for an answer of SLURM
LONGEST_PAUSE = 180  # seconds between two looks at the queue, of the executor 2.8
# Why a job waits for something that will not happen.
_NEVER = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|Max\w+PerJob|MaxWallDuration|BadConstraints"
    r"|AccountNotAllowed|QOSNotAllowed|InvalidAccount|InvalidQOS|DependencyNeverSatisfied"
)


def _ask(*command):
    """Return the lines that a program prints; none if it is missing, fails or is silent."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.splitlines() if said.returncode == 0 else []


@functools.cache
def limits(partition=None):
    """Return what one job may ask for at most, as far as it is known.

    Args:
        partition: Name of the partition, or several with commas; None stands for the default.

    Returns:
        `runtime` in minutes and `mem_mb`, each only if there is a limit.
    """
    rows = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in _partitions()]
    wanted = (partition or "").split(",")
    rows = [
        row
        for row in rows
        if row.get("PartitionName") in wanted or not partition and row.get("Default") == "YES"
    ]
    found = {}
    times = [_minutes(row.get("MaxTime", "")) for row in rows]
    if times and None not in times:
        found["runtime"] = max(times)
    memory = []
    for row in rows:
        of_nodes = _ask("sinfo", "-h", "-e", "-p", row["PartitionName"], "-o", "%m")
        amounts = [int(text) for text in of_nodes if text.isdigit()]
        if (allowed := row.get("MaxMemPerNode", "")).isdigit():
            amounts = [min(amount, int(allowed)) for amount in amounts or [int(allowed)]]
        memory += amounts
    if memory:
        found["mem_mb"] = max(memory)
    return found


@functools.cache
def _partitions():
    return _ask("scontrol", "show", "partition", "--oneliner")


def _minutes(text):
    """Return the minutes in "1-12:00:00" or "03:00:00"; None for UNLIMITED."""
    time = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    if not time:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in time.groups())
    return 60 * (24 * days + hours) + minutes


def submit_limit(qos=None):
    """Return how many jobs one user may have in the queue, or None if no limit is known.

    Args:
        qos: Name of the QOS that jobs ask for; None stands for the default.
    """
    user = f"user={getpass.getuser()}"
    found = []
    for line in _ask("sacctmgr", "-nP", "show", "assoc", user, "format=MaxSubmit,DefaultQOS"):
        limit, _, default = line.partition("|")
        found.append(limit)
        qos = qos or default
    for line in _ask("sacctmgr", "-nP", "show", "qos", "format=Name,MaxSubmitPU"):
        name, _, limit = line.partition("|")
        if name == qos:
            found.append(limit)
    return min((int(limit) for limit in found if limit.isdigit()), default=None)


def pending(folder):
    """Return why jobs wait that were submitted in a folder.

    Args:
        folder: Folder of the study.

    Returns:
        {comment of the job: (its number, reason, whether it can never start)}. The executor's
        comment is `rule_RULE_wildcards_VALUES`.
    """
    found = {}
    for line in _ask("squeue", "--me", "--states=PENDING", "-h", "-o", "%A|%r|%k|%Z"):
        number, reason, comment, place = (line.split("|", 3) + [""] * 3)[:4]
        if place == str(folder):
            found[comment] = (number, reason, bool(_NEVER.search(reason)))
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
    known = [
        re.match(r"MinJobAge\s*=\s*(\d+)", line) for line in _ask("scontrol", "show", "config")
    ]
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
