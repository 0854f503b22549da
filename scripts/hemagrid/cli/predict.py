"""What a trained run says about new pictures, read as its training pictures were."""

import csv

import numpy as np

from hemagrid.reporting.text import aligned

WIDTH = 100  # columns of the table, unless class names alone take more


_SHORTEST = 12  # characters that are left of a file's name


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
