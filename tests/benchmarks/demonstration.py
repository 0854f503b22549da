"""Train the networks of a finished demonstration again, the direct way.

    make demo
    python tests/benchmarks/demonstration.py [demo] [--only mobilenetv3]

Plain Keras (`direct_study.py`) passes the demonstration's images through the whole network in
every epoch of every head and in every trial of a search, as many epochs of each phase as the
histories of the runs tell, with one thread, as a job has. Seconds are the processor's, so that
other work counts little; of ours those of the jobs that make weights, embed, search and train,
from the study's `benchmarks/`, each with its own start of Keras. Weights are random on both
sides and not compared: `bench.py` does that. The direct way takes Adam for AdamW.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from processes import last_line  # noqa: E402

from hemagrid.config.grid import known_runs  # noqa: E402
from hemagrid.config.loading import study_config  # noqa: E402
from hemagrid.reporting.resources import usage_table  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402
from hemagrid.training.jobs import prepare  # noqa: E402


def runs_of(study):
    """Return {network: names of its trained runs}: a backbone, or a CNN by its own name."""
    networks = {}
    for name, run in known_runs(study_config(study)).items():
        if (study / "results" / name / "history.csv").exists():
            networks.setdefault(run.backbone or name, []).append(name)
    return networks


def job_seconds(study, network, runs):
    """Return the processor's seconds in the jobs that embed, search and train for a network."""
    jobs = usage_table(study / "benchmarks")
    ours = jobs["rule"].isin(["search", "train"]) & jobs["job"].isin(runs)
    ours |= jobs["rule"].isin(["backbone_weights", "embed"]) & (jobs["job"] == network)
    return 60 * jobs[ours]["cpu_minutes"].sum()


def direct_seconds(study, network):
    """Train a network's runs in a process of its own; return the processor's seconds."""
    seconds = float(last_line(__file__, study, "--side", network))
    print(f"{network}: {seconds:.0f} s the direct way", file=sys.stderr, flush=True)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--jobs", type=int, default=2, help="networks side by side")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    networks = runs_of(arguments.study)
    if arguments.side:
        prepare(threads=1)
        from direct_study import train_network

        train_network(arguments.study, arguments.side, networks[arguments.side])
        print(time.process_time())
        return
    chosen = {name: runs for name, runs in networks.items() if arguments.only in name}
    if not chosen:
        sys.exit(f"{arguments.study}: no finished runs of such a name; make demo makes some")
    with ThreadPoolExecutor(arguments.jobs) as jobs:
        direct = list(jobs.map(partial(direct_seconds, arguments.study), chosen))
    ours = [job_seconds(arguments.study, network, chosen[network]) for network in chosen]
    rows = [
        [network, str(len(runs)), *sides(*seconds)]
        for (network, runs), *seconds in zip(chosen.items(), ours, direct, strict=True)
    ]
    rows.append(["all of these", "", *sides(sum(ours), sum(direct))])
    if not arguments.only:
        everything = 60 * usage_table(arguments.study / "benchmarks")["cpu_minutes"].sum()
        rows.append(["with data, tables, figures, report", "", *sides(everything, sum(direct))])
    print(aligned(["network", "runs", "ours", "direct way", "ratio"], rows))


def sides(ours, direct):
    return f"{ours:.0f} s", f"{direct:.0f} s", f"{direct / ours:.1f}x"


if __name__ == "__main__":
    main()
