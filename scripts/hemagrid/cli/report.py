"""Write the report from what is finished so far."""

import os

from hemagrid import names
from hemagrid.cli import options
from hemagrid.config.loading import differences, load_config, recorded_config
from hemagrid.config.messages import listed
from hemagrid.reporting.finished import report_finished

TEXT = """
Write results/report.html from the runs that are finished so far, and name those that are
missing. Runs that an earlier release evaluated are evaluated again for it. Only this page is
written: nothing is trained, fetched or removed. It may be called at any time, also while jobs
run.
"""


SAID = {
    "again": "Evaluated by an earlier release, and again for this page alone",
    "older": "Evaluated by an earlier release and so not in it, because their predictions are "
    "not there or cannot be read (snakemake --dry-run says what would be made again; else use "
    "the clone that made them)",
    "missing": "Not finished and so not in it",
    "others": "In the folder but not in this config, and so not in it",
}


def main(words):
    """Write the report and say what it lacks and which config it is of."""
    arguments = options.read(words, options.parser("report", TEXT))
    folder, config, config_name = options.study(arguments)
    recorded = recorded_config(folder)
    of = load_config([recorded]) if recorded else config
    changed = differences(config, of)
    os.chdir(folder)
    found = report_finished(config, names.REPORT, of)
    print(f"Wrote {folder / names.REPORT}, by {config_name}")
    if not recorded:
        print(f"The study has no record of its config ({names.CONFIG}): is this the one?")
    if changed:
        print(f"The results are of another config, {recorded}, and the page shows that one.")
        print(f"They differ in: {listed(changed, 5)}")
    for kind, runs in found.items():
        if runs:
            print(f"{SAID[kind]}: {listed(runs)}")
