"""BloodMNIST's own test split without the pictures that the study has already."""

import logging

import numpy as np

from hemagrid import io
from hemagrid.data.duplicates import (
    SHIFT,
    candidates,
    differences,
    exact_groups,
    fingerprint,
    groups,
    near_limits,
)

logger = logging.getLogger(__name__)


def write_holdout(found, study, settings, out, threads=1):
    """Write the images of the holdout that are new, and list the others.

    Args:
        found: Paths `images` (.npy) and `table` (.csv) of the test split as it came.
        study: Fingerprints of the study's images (`duplicates.fingerprint`), dropped ones
            included.
        settings: The config's `dataset`, as for `duplicates.deduplicate`.
        out: Paths to write: `images` (.npy), `table` (.csv, with the near-duplicate `group` of
            each image) and `duplicates` (.csv).
        threads: Number of threads.
    """
    images, table = io.open_images(found["images"]), io.read_table(found["table"])
    reason, difference, group = compare(fingerprint(images, threads), study, settings)
    new = reason == ""
    listed = table.loc[~new, ["id", "label", "class_name", "source"]]
    listed = listed.assign(reason=reason[~new], difference=difference[~new].round(4))
    io.write_table(out["duplicates"], listed)
    rows = np.flatnonzero(new)
    ids = np.arange(len(rows))
    with io.new_array(out["images"], (len(rows), *images.shape[1:]), "uint8") as array:
        for position, row in enumerate(rows):
            array[position] = images[row]
    group = np.searchsorted(rows, group[rows])
    io.write_table(out["table"], table.iloc[rows].assign(id=ids, parent_id=ids, group=group))
    inside = listed["reason"].str.startswith("duplicate of holdout").sum()
    logger.info(
        f"Holdout: {len(rows)} of {len(table)} images kept. Pictures that the study already"
        f" has: {len(listed) - inside}; duplicates among themselves: {inside}"
    )


def compare(holdout, study, settings):
    """Tell which images of the holdout are not new, jointly with the study's images.

    Args:
        holdout: Fingerprints of the holdout (`duplicates.fingerprint`), (n,).
        study: Fingerprints of the study's images, dropped ones included.
        settings: As for `write_holdout`.

    Returns:
        Per image of the holdout, arrays (n,): the reason why it is left out ("", "duplicate of
        study image ID", "near duplicate of study image ID" or "duplicate of holdout image
        ID"), the difference from the image named (0 if new), and its near-duplicate group, the
        smallest row of it.
    """
    both = np.concatenate([study, holdout])
    left, right, views = candidates(both, np.arange(len(both)), settings)
    exact, difference = exact_groups(both, left, right, views, settings)
    reason = np.full(len(both), "", object)
    for image in np.flatnonzero(exact != np.arange(len(both))):
        whole, start = ("study", 0) if exact[image] < len(study) else ("holdout", len(study))
        reason[image] = f"duplicate of {whole} image {exact[image] - start}"
    measured = differences(both, left, right, views, SHIFT)
    near = (
        (left < len(study)) & (right >= len(study)) & (measured <= near_limits(settings)[views])
    )
    near &= reason[right] == ""
    for pair in np.flatnonzero(near)[np.argsort(-measured[near])]:  # the closest comes last
        reason[right[pair]] = f"near duplicate of study image {left[pair]}"
        difference[right[pair]] = measured[pair]
    new = reason == ""
    new[: len(study)] = False
    pairs = new[left] & new[right]
    pairs = left[pairs], right[pairs], views[pairs]
    first, _ = groups(both, *pairs, near_limits(settings), SHIFT)
    part = slice(len(study), None)
    return reason[part], difference[part], first[part] - len(study)
