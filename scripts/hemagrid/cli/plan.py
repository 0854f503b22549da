"""Say what a study will cost: jobs, hours and storage, before anything is submitted."""

import shlex
import textwrap
from pathlib import Path
from types import SimpleNamespace

from hemagrid.cli import dag, options, reruns
from hemagrid.cli.estimate import Estimate, Job, Unmeasured, count_images, storage
from hemagrid.cli.speeds import MEASURE, OWN_SPEEDS, read_speeds
from hemagrid.config import slurm
from hemagrid.config.grid import grid, known_runs, replicates, tunable_backbones
from hemagrid.names import CHECKPOINTS, FINETUNE_TOP
from hemagrid.reporting.text import aligned, counted, duration, few, size

TEXT = """
Print what snakemake, called with the same options, would run: jobs, hours and storage. Nothing
is run or written. Hours come from speeds measured on other machines or, after
tests/benchmarks/measure_throughput.py, on yours.
"""
_PLACES = {"local": "local", "cpu": "CPU", "gpu": "GPU"}
_SHORT, _DASH = "short", "-"


def main(words):
    """Print the plan."""
    takes = ("[TARGET ...]", "files or rules; default: all")
    parser = options.parser("plan", TEXT, takes, default="none, as for snakemake")
    arguments = options.read(words, parser)
    folder = Path(arguments.directory or ".")
    measure = MEASURE
    if arguments.configfile:
        measure += f" --configfile {shlex.join(map(str, arguments.configfile))}"
    if arguments.directory:
        measure += f" --out {shlex.quote(str(folder / OWN_SPEEDS))}"
    jobs, config, again = dag.planned(arguments)
    print(describe(jobs, config, folder, measure))
    if again:
        print("\n" + reruns.describe(again, folder, config), end="")
    if arguments.executor == "slurm":
        print("\n\n".join(["", *map(_paragraph, cluster(jobs, arguments))]))


def describe(jobs, config, folder=".", command=MEASURE):
    """Return the plan of a study as text.

    Args:
        jobs: The Jobs that would run, in the order of the rules.
        config: Validated config.
        folder: Folder of the study.
        command: What measures the speeds of this study.

    Raises:
        InputError: The images are not there, or a table of speeds is damaged.
    """
    images, speeds = count_images(config, folder), read_speeds(folder)
    estimate = Estimate(config, images, speeds)
    rows, missing, late, guessed = [], set(), [], False
    spent, first, repeated = ({"cpu": 0, "gpu": 0} for _ in range(3))
    later = {name for name, run in known_runs(config).items() if run.repeats}
    for rule in dict.fromkeys(job.rule for job in jobs):
        group = [job for job in jobs if job.rule == rule]
        times = []
        for job in group:
            device, seconds = _time(estimate, job, missing)
            guessed |= seconds is not None and job.place == "gpu" and device == "cpu"
            if seconds is not None:
                times.append((seconds, device))
                spent[device] += seconds
                if rule in ("train", "predict"):
                    (repeated if job.wildcards["run"] in later else first)[device] += seconds
                if seconds > 60 * job.minutes and (job.place == "gpu") == (device == "gpu"):
                    late.append(" ".join([rule, *job.wildcards.values()]))
        rows.append(
            [
                rule,
                len(group),
                "/".join(dict.fromkeys(_PLACES[job.place] for job in group)),
                duration(max(times)[0]) if times else _SHORT,
                _span(max(job.minutes for job in group)),
                *(_hours(sum(t for t, on in times if on == device)) for device in spent),
            ]
        )
    rows.append(["total", len(jobs), "", "", "", *map(_hours, spent.values())])
    header = ["rule", "jobs", "runs on", "longest", "asks for", "CPU-core-hours", "GPU-hours"]
    stored = storage(estimate)
    kept = sum(amount or 0 for _, where, amount in stored if not where.startswith(CHECKPOINTS))
    known = [[what, where, _DASH if b is None else size(b)] for what, where, b in stored]
    known.append(["kept at the end, at least", "", size(kept)])
    parts = [
        f"{counted(len(grid(config)), 'run')} in the grid, {counted(len(jobs), 'job')} to do.\n"
        f"Images: {images.source}.\n"
        "With their copies: "
        + ", ".join(f"{name} {count:,}" for name, count in images.subsets.items()),
        aligned(header, rows, left=3),
        _paragraph(
            "Times are for all epochs of every phase, an upper bound: early stopping ends most "
            f"phases sooner. {_SHORT}: seconds to minutes, not counted. local: where snakemake "
            "itself runs, also on a cluster."
        ),
    ]
    if count := sum(job.wildcards.get("run") in later for job in jobs):
        parts.append(
            _paragraph(
                f"Of the {len(jobs)} jobs, {count} are of second and later replicates: "
                f"{_both(repeated)}. They share images, embeddings and searches with the first."
            )
        )
    elif any(first.values()):
        parts.append(
            _paragraph(
                "One more replicate of each of these runs (replicates: 2) would add "
                f"{_both(first)}: it shares images, embeddings and searches with the first."
            )
        )
    if any(job.rule == "select_finalists" for job in jobs):
        parts += _later(estimate, jobs)
    parts += _without_top(config)
    if guessed:
        parts.append(
            _paragraph(
                "No speed of a GPU is known here: the times of GPU jobs are those of ONE CPU "
                "core, many times what a GPU needs. Run this on a node with a GPU, then plan "
                "again:"
            )
            + f"\n  {command}"
        )
    if missing:
        parts.append(
            _paragraph(
                f"Not measured and so left out: {'; '.join(sorted(missing))}. Measure it:"
            )
            + f"\n  {command}"
        )
    if late:
        parts.append(
            _paragraph(
                f"Longer than requested: {', '.join(late)}. Raise `runtime` of those "
                "networks in the config, or let their jobs be stopped and started again: "
                "training continues where it stopped."
            )
        )
    parts.append(aligned(["storage", "in", "about"], known, left=2))
    return "\n\n".join(parts)


def cluster(jobs, arguments):
    """Say what the SLURM cluster here would refuse, and what else it does to a study.

    Args:
        jobs: The Jobs that would run.
        arguments: What `options.read` returned.

    Returns:
        List of paragraphs.
    """
    never, most = {}, []
    for job in jobs:
        if job.place == "local":
            continue
        allowed = slurm.limits(*job.queue)
        if "queued" in allowed:
            most.append(allowed["queued"])
        refusal = slurm.refusal(*job.queue)
        problems = [f"{refusal};"] if refusal else []
        asked = {"runtime": job.minutes, "mem_mb": job.memory, "gpu": int(job.place == "gpu")}
        for key, (limit, by) in allowed.items():
            if asked.get(key, 0) > limit:
                problems.append(
                    f"it asks for {key} {asked[key]:,}, and {by} allows {limit:,}; lower that "
                    "in the config, or"
                )
        for problem in problems:
            name = " ".join([job.rule, *job.wildcards.values()])
            never.setdefault(problem, []).append(name)
    found = [
        f"{few(names)} can never start: {problem} name another partition, account or QOS in "
        "the profile."
        for problem, names in never.items()
    ]
    limit, by = min(most, default=(arguments.jobs, None))
    if 0 < limit < arguments.jobs:
        found.append(
            f"SLURM refuses more than {limit} jobs of yours in the queue (MaxSubmit of {by}), "
            f"and the profile allows {arguments.jobs}: a refused submission is tried again for "
            f"an hour. In the profile, write jobs: {max(limit - 5, 1)}, with room for your "
            "others."
        )
    settings = SimpleNamespace(
        status_command=arguments.slurm_status_command,
        init_seconds_before_status_checks=arguments.slurm_init_seconds_before_status_checks,
    )
    return found + [problem for problem in [slurm.status_problem(settings)] if problem]


def _later(estimate, jobs):
    """Say what comes once finalists are chosen; nothing where the config names them."""
    if estimate.config["tuning"]["backbones"] is not None:
        return []
    place = next((job.place for job in jobs if job.rule == "train"), "cpu")
    spent, unknown = {"cpu": 0, "gpu": 0}, set()
    searches = [Job("search", {"run": run}, "cpu", 0) for run in estimate.tuned]
    trainings = [
        Job("train", {"run": run.name}, place, 0)
        for base in estimate.tuned.values()
        for run in replicates(estimate.config, base)
    ]
    predictions = [Job("predict", job.wildcards, place, 0) for job in trainings]
    for job in [*searches, *trainings, *predictions]:
        device, seconds = _time(estimate, job, unknown)
        spent[device] += seconds or 0
    count = len(searches)
    more = "as many" if len(trainings) == count else len(trainings)
    return [
        _paragraph(
            f"Not in the table: {count} {'search' if count == 1 else 'searches'} and {more} "
            "more training jobs, of finalists that are known once the grid is trained. If they "
            f"are the slowest ({', '.join(estimate.tuned)}): {_both(spent)}."
        )
    ]


def _both(spent):
    """Spell the hours on both kinds of devices."""
    named = zip(spent.values(), ("CPU-core-hours", "GPU-hours"), strict=True)
    hours = [f"{_hours(seconds)} {name}" for seconds, name in named if seconds]
    return " and ".join(hours) or "hours unknown"


def _without_top(config):
    """Say of each backbone without `top` in the config what its second phase will train."""
    used = {name: config["backbones"][name] for name in tunable_backbones(config)}
    return [
        _paragraph(
            f"backbones.{name} has no `top`: {FINETUNE_TOP} trains what follows the layer that "
            f"{settings['function']}() in {settings['module']} names, and is left out if it "
            "names none."
        )
        for name, settings in used.items()
        if settings["top"] is None
    ]


def _time(estimate, job, missing):
    """Return (device, seconds): on a GPU where the job has one and its speed is known."""
    for device in ("gpu", "cpu") if job.place == "gpu" else ("cpu",):
        try:
            return device, estimate.seconds(job, device)
        except Unmeasured as network:
            unknown = str(network)
    missing.add(unknown)
    return device, None


def _paragraph(text):
    return textwrap.fill(text, 88, break_on_hyphens=False)


def _span(minutes):
    return f"{minutes} min" if minutes % 60 else f"{minutes // 60} h"


def _hours(seconds):
    hours = seconds / 3600
    return f"{hours:,.{1 if hours >= 10 else 2}f}" if seconds else _DASH
