"""BloodMNIST's own test split without the pictures that the study has already."""

import logging

import numpy as np

from hemagrid import io
from hemagrid.data.duplicates import (
    SHIFT,
    candidates,
    differences,
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
        f"Holdout: {len(rows)} of {len(table)} images kept; {len(listed) - inside} are pictures"
        f" that the study has, {inside} are duplicates among themselves"
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
    left, right, views = candidates(both, settings["near_duplicate_distance"])
    later = right >= len(study)
    left, right, views = left[later], right[later], views[later]
    own = both["hashes"][:, 0]
    equal = (views == 0) & (own[left] == own[right])
    limit = np.inf if settings["duplicates"] == "hash" else settings["duplicate_difference"]
    reason = np.full(len(holdout), "", object)
    difference = np.zeros(len(holdout))

    def leave_out(pairs, measured, what):
        # The closest comes last and stays.
        for pair in pairs[np.argsort(-measured[pairs], kind="stable")]:
            row = right[pair] - len(study)
            whole, start = ("study", 0) if left[pair] < len(study) else ("holdout", len(study))
            reason[row] = f"{what} of {whole} image {left[pair] - start}"
            difference[row] = measured[pair]

    known = left < len(study)
    measured = differences(both, left, right, views, SHIFT)
    near = measured <= near_limits(settings)[views]
    leave_out(np.flatnonzero(known & near), measured, "near duplicate")
    measured = differences(both, left, right, views)
    leave_out(np.flatnonzero(known & equal & (measured <= limit)), measured, "duplicate")

    new = np.concatenate([np.zeros(len(study), bool), reason == ""])
    pairs = equal & new[left] & new[right]
    first, measured = groups(both, left[pairs], right[pairs], views[pairs], limit)
    for row in np.flatnonzero(first[len(study) :] != np.arange(len(study), len(both))):
        reason[row] = f"duplicate of holdout image {first[len(study) + row] - len(study)}"
        difference[row] = measured[len(study) + row]
    new[len(study) :] = reason == ""
    pairs = new[left] & new[right]
    pairs = left[pairs], right[pairs], views[pairs]
    first, _ = groups(both, *pairs, near_limits(settings), SHIFT)
    return reason, difference, first[len(study) :] - len(study)
