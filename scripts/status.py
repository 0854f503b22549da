"""Print where every run of a study stands, while it runs or after.

    python scripts/status.py [--directory DIR] [--configfile my.yaml ...]

A program for people, no rule's script. It reads files and changes none.
"""

import argparse
import sys
from pathlib import Path

from hemagrid.cli.status import describe, status
from hemagrid.config.loading import study_config
from hemagrid.errors import InputError


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=Path, default=Path("."), help="of the study")
    parser.add_argument(
        "--configfile", nargs="+", type=Path, default=[], help="default: the one it ran with"
    )
    arguments = parser.parse_args()
    try:
        config = study_config(arguments.directory, arguments.configfile)
        print(describe(status(config, arguments.directory)))
    except InputError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
