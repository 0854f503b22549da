"""What makes a stage stale beside its inputs and settings: its revision, or the library's code.

A stage that training rests on, or training itself, may take days. It runs again when its
revision is raised, which whoever changes its results does. Everything after training takes
seconds and runs again whenever the library or a package that it computes with changes.
"""

import ast
import hashlib
import json
from importlib import metadata
from pathlib import Path

REVISIONS = {
    "smears": 1,
    "acquire_dataset": 1,
    "fingerprint": 1,
    "deduplicate": 1,
    "holdout": 1,
    "split": 1,
    "augment": 1,
    "originals": 1,
    "backbone_weights": 1,
    "embed": 1,
    "train": 1,
    "search": 1,
}
"""The revision of each stage, by rule. Raise it when the stage's results change."""

PACKAGES = ("keras", "tensorflow", "numpy", "pandas", "scipy", "scikit-learn", "altair")


def revision(stage):
    """Return a stage's revision as text, such as "train 1"."""
    return f"{stage} {REVISIONS[stage]}"


def digest(value):
    """Return twelve hexadecimal digits of a value of the config, the same for equal values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def code():
    """Return a digest of the library and of the versions that it computes with.

    Comments, docstrings and layout do not count: they change no result.
    """
    scripts = Path(__file__).parents[1]
    seen = hashlib.sha256()
    for path in sorted(scripts.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            content = _meaning(path) if path.suffix == ".py" else path.read_bytes()
            seen.update(f"{path.relative_to(scripts)} {len(content)} ".encode() + content)
    for package in PACKAGES:
        seen.update(f"{package} {_version(package)} ".encode())
    return f"code {seen.hexdigest()[:12]}"


def _meaning(path):
    """Return what the interpreter makes of a module, without its docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if hasattr(node, "body") and isinstance(node.body, list):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return ast.dump(tree).encode()


def _is_text(statement):
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
