"""The hardest images, and those whose label may be wrong, as pictures."""

from hemagrid import io
from hemagrid.evaluation.label_noise import AGREE
from hemagrid.names import subset_title
from hemagrid.reporting import pictures

SHOWN = 24  # pictures of each kind and test set


def images(inputs, arrays):
    """Show the first images of both lists.

    Args:
        inputs: Paths `hard_images` and `label_noise` of what `agreement.compare_answers` wrote.
        arrays: {test set: its images, uint8 (N, H, W, 3)}.

    Returns:
        {"agree": share of runs that a candidate needs, "sets": a list with an entry per test
        set}; None if the lists are not there or hold nothing.
    """
    if "hard_images" not in inputs:
        return None
    hard, noisy = (_read(inputs[name]) for name in ("hard_images", "label_noise"))
    sets = []
    for subset, rows in hard.groupby("subset", sort=False):
        if subset not in arrays or rows["row"].max() >= len(arrays[subset]):
            continue
        candidates = noisy[noisy["subset"] == subset]
        sets.append(
            {
                "name": subset_title(subset),
                "runs": rows["runs"].iloc[0],
                "images": len(arrays[subset]),
                "all_wrong": int((rows["wrong_runs"] == rows["runs"]).sum()),
                "listed": len(rows),
                "candidates": len(candidates),
                "noisy": _pictures(candidates, arrays[subset]),
                "hard": _pictures(rows, arrays[subset]),
            }
        )
    return {"agree": AGREE, "sets": sets} if sets else None


def _read(path):
    return io.read_sparse(path, "subset", "source", "label", "named")


def _pictures(rows, images):
    return [
        {"picture": pictures.picture(images[row.row]), "of": row}
        for row in rows[:SHOWN].itertuples()
    ]
