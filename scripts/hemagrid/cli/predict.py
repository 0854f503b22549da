"""Classify new pictures with a trained run, read as its training pictures were."""

import argparse
import csv
import os
import sys
from pathlib import Path

import numpy as np

from hemagrid.data.pictures import printable
from hemagrid.errors import InputError
from hemagrid.names import KERAS_HOME
from hemagrid.reporting.text import aligned
from hemagrid.training import jobs

TEXT = """
Print the class that a trained run gives each picture, and its probability. A file that cannot
be read is named, and the exit status is then 1.
"""
WIDTH = 100  # columns of the table, unless class names alone take more
_SHORTEST = 12  # characters that are left of a file's name


def main(words):
    """Print predictions; return 1 if a file could not be read."""
    parser = argparse.ArgumentParser(prog="hemagrid predict", description=TEXT)
    parser.add_argument("run", metavar="RUN", help="name of the run, such as convnext_cfg1")
    parser.add_argument(
        "images", metavar="IMAGES", nargs="+", help="picture files, and folders of them"
    )
    help = "folder of the study; default: here"
    parser.add_argument("--directory", metavar="DIR", type=Path, default=Path("."), help=help)
    parser.add_argument("--csv", action="store_true", help="all probabilities, as CSV")
    arguments = parser.parse_args(words)
    if not arguments.directory.is_dir():
        raise InputError(
            f"{arguments.directory}: found no such folder, expected that of a study"
        )
    # Keras writes its settings there: into the study, from whatever folder this is called.
    os.environ.setdefault("KERAS_HOME", str(Path(arguments.directory, KERAS_HOME).absolute()))
    jobs.prepare(os.cpu_count())
    from hemagrid.evaluation import inference

    refused = []

    def refuse(path, reason):
        refused.append(path)
        print(f"{path}: {reason}", file=sys.stderr)

    folder = inference.find_run(arguments.run, arguments.directory)
    pictures = []
    for path in inference.find_pictures(arguments.images):
        if path.exists():
            pictures.append(path)
        else:
            refuse(printable(str(path)), "not found")
    if not pictures:  # then Keras need not start
        return 1
    write = write_csv if arguments.csv else write_table
    write(
        inference.run_classes(folder), inference.classify(folder, pictures, refuse), sys.stdout
    )
    return 1 if refused else 0


def write_csv(class_names, results, stream):
    """Write one row per picture as it comes: file, class, the probability (0-1) of each."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "class", *class_names])
    for name, probabilities in results:
        shown = [f"{share:.6f}" for share in probabilities]
        writer.writerow([name, class_names[probabilities.argmax()], *shown])


def write_table(class_names, results, stream):
    """Write a table for people, at most `WIDTH` wide: the class of each picture, the next."""
    rows = []
    for name, probabilities in results:
        first, second = np.argsort(-probabilities, kind="stable")[:2]
        rows.append(
            [
                name,
                class_names[first],
                f"{100 * probabilities[first]:.1f} %",
                class_names[second],
                f"{100 * probabilities[second]:.1f} %",
            ]
        )
    header = ["file", "class", "probability", "next", "its probability"]
    used = sum(
        2 + max(map(len, column)) for column in list(zip(header, *rows, strict=True))[1:]
    )
    for row in rows:
        row[0] = _cut(row[0], max(WIDTH - used, _SHORTEST))
    print(aligned(header, rows), file=stream)


def _cut(text, width):
    """Shorten a path from the left: its end tells files apart."""
    return text if len(text) <= width else "\N{HORIZONTAL ELLIPSIS}" + text[1 - width :]
