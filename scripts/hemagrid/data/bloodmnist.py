"""BloodMNIST, the public set of blood cells that stands in for the study's own file.

MedMNIST+ (Yang et al., "MedMNIST v2", Scientific Data 10:41, 2023; larger sizes at
https://zenodo.org/records/10519652, CC BY 4.0), from the pictures of Acevedo et al., Data in
Brief 30:105474, 2020. By its counts, its train split is the study's set without the junk.
"""

import os
import shutil
from pathlib import Path

import pooch

from hemagrid.errors import InputError

ZENODO = "https://zenodo.org/records/10519652/files"
MD5 = {
    64: "2b94928a2ae4916078ca51e05b6b800b",
    128: "adace1e0ed228fccda1f39692059dd4c",
    224: "b718ff6835fcbdb22ba9eacccd7b2601",
}


def fetch(resolution, folder, base_url=ZENODO):
    """Fetch a BloodMNIST file, or check the one that is there.

    A file that is there needs no network.

    Args:
        resolution: Edge of its pictures in pixels, a key of `MD5`.
        folder: Path of the folder for the file.
        base_url: Address of the folder that it is fetched from.

    Returns:
        Path of `bloodmnist_{resolution}.npz` in `folder`.

    Raises:
        InputError: If the resolution is not published, the file has another checksum, or it
            cannot be fetched.
    """
    if resolution not in MD5:
        raise InputError(
            f"dataset.resolution: found {resolution}, expected one of {sorted(MD5)}"
        )
    name = f"bloodmnist_{resolution}.npz"
    path = Path(folder) / name
    if path.exists():
        check(path)
        return path
    url = f"{base_url}/{name}?download=1"
    unfinished = path.with_name(f".{name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed fetch left
    try:
        pooch.retrieve(url, f"md5:{MD5[resolution]}", fname=name, path=unfinished)
        # pooch's file is for its owner alone.
        (unfinished / name).chmod(unfinished.stat().st_mode & 0o666)
        os.replace(unfinished / name, path)
    except (OSError, ValueError) as error:  # no network or server; another checksum
        raise InputError(
            f"{name}: could not be fetched from {url} ({error}). Fetch it by hand, MD5"
            f" {MD5[resolution]}, and put it at {path}"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def check(path):
    """Raise InputError unless `path` is named and filled as a published BloodMNIST file."""
    published = {f"bloodmnist_{resolution}.npz": md5 for resolution, md5 in MD5.items()}
    name = Path(path).name
    if name not in published:
        raise InputError(f"{path}: expected one of {', '.join(published)}")
    found = pooch.file_hash(str(path), alg="md5")
    if found != published[name]:
        raise InputError(
            f"{path}: MD5 is {found}, expected {published[name]}; remove the file to have it"
            f" fetched, or fetch {ZENODO}/{name}?download=1 again"
        )
