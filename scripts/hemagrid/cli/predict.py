"""Classify new pictures with a trained run, read as its training pictures were."""

import argparse
import contextlib
import csv
import itertools
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from hemagrid.config.messages import listed
from hemagrid.data.pictures import printable
from hemagrid.errors import InputError
from hemagrid.evaluation import inference
from hemagrid.evaluation.likeness import Likeness
from hemagrid.names import IMAGES, KERAS_HOME, SAMPLES
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
    folder = inference.find_run(arguments.run, arguments.directory)
    paths = inference.find_pictures(arguments.images)
    # Keras writes its settings there: into the study, from whatever folder this is called.
    os.environ.setdefault("KERAS_HOME", str(Path(arguments.directory, KERAS_HOME).absolute()))
    jobs.prepare(os.cpu_count())
    write = write_csv if arguments.csv else write_table
    refused, unlike = [], {}
    with _own_messages() as messages:

        def refuse(path, reason):
            refused.append(path)
            print(f"{path}: {reason}", file=messages)

        def look(path, pixels, changes):
            for difference in like.differences(path, pixels, changes):
                unlike.setdefault(difference, []).append(printable(str(path)))

        pictures = [path for path in paths if path.exists()]
        for path in paths:
            if not path.exists():
                refuse(printable(str(path)), "not found")
        like = _likeness(arguments.directory, messages) if pictures else None
        found = inference.classify(folder, pictures, refuse, like and look)
        if (first := next(found, None)) is None:
            return 1
        write(inference.run_classes(folder), itertools.chain([first], found), sys.stdout)
        sys.stdout.flush()
        if unlike:
            print(describe(unlike), file=messages)
    return 1 if refused else 0


def describe(unlike):
    """Spell which pictures are unlike those of the study, one line per difference.

    Args:
        unlike: {difference: list of files}.
    """
    count = len({path for paths in unlike.values() for path in paths})
    lines = [
        f"Unlike the pictures of the study: {count}. What the network says of "
        f"{'it' if count == 1 else 'them'} may mean little."
    ]
    lines += [f"  {what}: {listed(paths, 3)}" for what, paths in unlike.items()]
    return "\n".join(lines)


def _likeness(directory, messages):
    """Return what the study's pictures look like, or None where they are not there."""
    needed = [Path(directory, path) for path in (IMAGES, SAMPLES)]
    if all(path.is_file() for path in needed):
        return Likeness(directory)
    print(
        f"{' or '.join(map(str, needed))}: not found, so nobody looks whether these pictures "
        "are like those of the study",
        file=messages,
    )
    return None


@contextlib.contextmanager
def _own_messages():
    """Yield the terminal for messages, and keep what frameworks print there from it.

    TensorFlow writes some lines past Python. After an error of its own all that it said is
    shown.
    """
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield terminal
        except (InputError, KeyboardInterrupt):
            raise
        except Exception:
            said.seek(0)
            terminal.write(said.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)
            terminal.close()


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
