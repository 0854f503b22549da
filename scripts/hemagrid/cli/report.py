"""Write the report from what is finished so far."""

import os

from hemagrid import names
from hemagrid.cli import options
from hemagrid.config.loading import differences, load_config, recorded_config
from hemagrid.reporting.finished import report_finished

TEXT = """
Write results/report.html from the runs that are finished so far, and name those that are
missing. Only this page is written: nothing is trained, fetched or removed. It may be called at
any time, also while jobs run.
"""


def main(words):
    """Write the report and say what it lacks and which config it is of."""
    arguments = options.read(words, options.parser("report", TEXT))
    folder, config, config_name = options.study(arguments)
    recorded = recorded_config(folder)
    changed = differences(config, load_config([recorded])) if recorded else []
    os.chdir(folder)
    missing = report_finished(config, names.REPORT)
    print(f"Wrote {folder / names.REPORT}, by {config_name}")
    if changed:
        more = f" and {len(changed) - 5} more" * (len(changed) > 5)
        print(f"The study last ran with another config, {recorded}.")
        print(f"They differ in: {', '.join(changed[:5])}{more}")
    if missing:
        print(f"Not finished and so not in it: {', '.join(missing)}")
