"""What makes a stage stale, inputs and settings aside: its revision, or the library's code.

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
    "groups": 1,
    "acquire_test_set": 1,
    "test_set": 1,
    "split": 1,
    "augment": 1,
    "originals": 1,
    "backbone_weights": 1,
    "embed": 2,
    "map_cells": 1,  # rests on caches that may be removed by now
    "train": 2,
    "predict": 1,
    "corrupt": 1,  # of the rule predict
    "search": 1,
}
"""The revision of each stage, by rule. Raise it when the stage's results change."""

PACKAGES = (
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "numpy",
    "pandas",
    "scikit-learn",
    "altair",
)
"""What results are computed with, by the names under which it is installed."""
SUFFIXES = {".py", ".csv", ".j2", ".css", ".js", ".txt"}
"""Of the library's files."""
RESOURCES = {"mem_mb", "runtime", "require_gpu", "checkpoints"}
"""Keys of the config on which no result depends."""


def revision(stage):
    """Return a stage's revision as text, such as "train 1"."""
    return f"{stage} {REVISIONS[stage]}"


def digest(config):
    """Return twelve hexadecimal digits of a config; what jobs ask for does not count."""

    def results_only(value):
        if not isinstance(value, dict):
            return value
        return {k: results_only(v) for k, v in value.items() if k not in RESOURCES}

    text = json.dumps(results_only(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code():
    """Return a digest of the library and of the versions that it computes with.

    Comments, docstrings and layout do not count: they change no result. Nor do this module, and
    the command line, which no rule runs. Where the packages are not installed, because each
    rule brings its environment, the file of that environment counts.
    """
    scripts = Path(__file__).parents[1]
    files = [*scripts.glob("*.py"), *(scripts / "hemagrid").rglob("*")]
    seen = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(scripts)
        beside = name.parts[1:2] in (("cli",), ("revisions.py",))
        if beside or path.suffix not in SUFFIXES:
            continue
        content = _meaning(path) if path.suffix == ".py" else path.read_bytes()
        seen.update(f"{name} {len(content)} ".encode() + content)
    versions = [_version(package) for package in PACKAGES]
    seen.update(repr(versions).encode())
    if versions[0] is None:
        seen.update((scripts.parent / "envs" / "cpu.yaml").read_bytes())
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
