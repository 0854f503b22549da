"""Whether the user's own files still hold what a study was made from.

Time stamps alone do not tell: a picture may be renamed, or replaced by one with an older time,
and a copied folder has new times and the same pictures. So content decides. A file whose name,
size, time and inode are those on record counts as unchanged; one with another time or inode is
read. The inode tells that two folders with files of equal names and times changed places.
"""

import hashlib
import json
import os
from pathlib import Path

LITTER = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "@eadir", "#recycle", "@recycle", "#snapshot", "lost+found"),
    "__pycache__",
}


def is_litter(name):
    """Say whether a file or folder is hidden, or what a system or an editor leaves behind."""
    return name.startswith((".", "~$")) or name.casefold() in LITTER


def fingerprint(path, record):
    """Return text that changes when the content of a file or folder does.

    Args:
        path: Path of a file, or of a folder that is searched with its folders.
        record: Path of what `write_record` wrote when the content was last read. Without it
            names, sizes, times and inodes decide.
    """
    files = _list(path)
    try:
        known = json.loads(Path(record).read_text())
    except (OSError, ValueError):
        known = None
    if known and _unchanged(path, files, known["files"]):
        return known["fingerprint"]
    listing = json.dumps(sorted(files.items()))
    return f"pictures {hashlib.sha256(listing.encode()).hexdigest()[:12]}"


def write_record(path, text, out):
    """Write down the content of a file or folder, for `fingerprint` to compare with.

    Args:
        path: Path of a file, or of a folder that is searched with its folders.
        text: The fingerprint that stands for this content from now on.
        out: Path of the record, JSON with `path`, `fingerprint`, `bytes`, `sha256` (in a folder
            of all names and contents), and `files`: {name: [bytes, time in ns, inode,
            SHA-256]}.
    """
    from hemagrid import io  # not above: the workflow imports this module, and no NumPy

    files = {name: [*state, sha256(_inside(path, name))] for name, state in _list(path).items()}
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{files[name][-1]}  {name}\n".encode())
    content = {
        "path": str(path),
        "fingerprint": text,
        "bytes": sum(size for size, *_ in files.values()),
        "sha256": total.hexdigest() if Path(path).is_dir() else sha256(path),
        "files": files,
    }
    io.write_json(out, content)


def _unchanged(path, files, known):
    """Say whether `files` hold what is on record; read those of another time or inode."""
    if files.keys() != known.keys():
        return False
    moved = [name for name, state in files.items() if state != known[name][:-1]]
    if any(files[name][0] != known[name][0] for name in moved):
        return False
    return all(sha256(_inside(path, name)) == known[name][-1] for name in moved)


def _inside(path, name):
    return Path(path, name) if name else Path(path)


def sha256(path):
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list(path):
    """Map the name of each file to its size, time and inode; that of a file is empty."""
    if not os.path.isdir(path):
        stat = os.stat(path)
        return {"": [stat.st_size, stat.st_mtime_ns, stat.st_ino]}
    found, folders, seen = {}, [(str(path), "")], set()
    while folders:
        folder, prefix = folders.pop()
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            continue  # a link that leads back
        seen.add((place.st_dev, place.st_ino))
        for entry in os.scandir(folder):
            if is_litter(entry.name):
                continue
            if entry.is_dir():
                folders.append((entry.path, f"{prefix}{entry.name}/"))
            elif os.path.exists(entry.path):
                stat = entry.stat()
                found[prefix + entry.name] = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return found
