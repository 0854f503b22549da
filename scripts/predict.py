"""Print what a trained run says about new pictures: their class and its probability.

    python scripts/predict.py RUN IMAGES... [--directory DIR] [--csv]

A program for people, no rule's script. IMAGES are files, or folders that are searched with
their folders. What cannot be read is told on the standard error, and the exit status is 1.
"""

import argparse
import os
import sys
from pathlib import Path

from hemagrid.cli import predict
from hemagrid.errors import InputError
from hemagrid.evaluation import inference
from hemagrid.training import jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", metavar="RUN", help="such as convnext_cfg1")
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="files or folders")
    parser.add_argument("--directory", type=Path, default=Path("."), help="of the study")
    parser.add_argument("--csv", action="store_true", help="with every class's probability")
    arguments = parser.parse_args()
    # Keras writes its settings there: into the study, from whatever folder this is called.
    os.environ.setdefault(
        "KERAS_HOME", str((arguments.directory / "resources/keras").absolute())
    )
    jobs.prepare(os.cpu_count())
    refused = []

    def refuse(path, reason):
        refused.append(path)
        print(f"{path}: {reason}", file=sys.stderr)

    write = predict.write_csv if arguments.csv else predict.write_table
    try:
        folder = inference.find_run(arguments.run, arguments.directory)
        pictures = inference.find_pictures(arguments.images)
        results = inference.classify(folder, pictures, refuse)
        write(inference.run_classes(folder), results, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except InputError as error:
        sys.exit(f"Error: {error}")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
