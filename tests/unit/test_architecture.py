"""Who may import whom in the library, and where its names are written down."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from hemagrid import names

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
RULE_FILES = [ROOT / "workflow" / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
# A room imports those before it. The modules on top import one another alone.
ORDER = ["", "config", "data", "models", "training", "evaluation", "tuning", "reporting"]
ORDER += ["submission", "export", "cli"]
WITHOUT_KERAS = [
    "data.readers",
    "data.duplicates",
    "data.splits",
    "data.audit",
    "evaluation.cell_map",
    "evaluation.metrics",
    "evaluation.statistics",
    "evaluation.comparisons",
    "evaluation.controls",
    "tuning.finalists",
    "tuning.trials",
    "reporting.page",
    "reporting.finished",
    "submission.package",
    "submission.score",
    "export.tracking",
    "cli.main",
    "cli.plan",
    "cli.status",
]
KERAS = {"keras", "keras_cv", "keras_tuner", "tensorflow", "torch", "jax"}
# What every start of snakemake waits for.
LEAN = {"yaml", "jsonschema"}


def name_of(path):
    parts = path.relative_to(SCRIPTS).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


SOURCES = {name_of(path): path.read_text() for path in SCRIPTS.glob("hemagrid/**/*.py")}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}
OURS = {name.rpartition(".")[2] for name in TREES}


def imports(nodes):
    """Yield (module, name or None) of each import; a module of the library by its full name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full, None) if full in TREES else (node.module, alias.name)


def at_start(tree):
    """The statements that importing a module runs: those outside of functions."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


STARTED = {
    name: {found for found, _ in imports(at_start(tree))} for name, tree in TREES.items()
}
IMPORTED = {
    name: {found for found, _ in imports(ast.walk(tree))} for name, tree in TREES.items()
}


def reached(*modules):
    """Return all modules that importing these imports."""
    seen, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting.extend(STARTED.get(module, ()))
    return seen


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 2 else ""


def test_no_module_imports_itself_in_a_circle():
    ours = {name: found & TREES.keys() for name, found in IMPORTED.items()}
    TopologicalSorter(ours).prepare()


@pytest.mark.parametrize("module", TREES)
def test_a_room_imports_only_rooms_below_it(module):
    place = ORDER.index(room(module))
    wrong = [
        found
        for found in IMPORTED[module] & TREES.keys()
        if ORDER.index(room(found)) > place and found != "hemagrid"
    ]
    assert not wrong


@pytest.mark.parametrize("module", WITHOUT_KERAS)
def test_rooms_that_need_no_keras_do_not_import_it(module):
    found = reached(f"hemagrid.{module}")
    assert not {name.partition(".")[0] for name in found} & KERAS


def test_planning_imports_nothing_heavy():
    common = (ROOT / "workflow" / "rules" / "common.smk").read_text()
    lines = [line for line in common.splitlines() if re.match(r"(from|import) ", line)]
    wanted = {found for found, _ in imports(ast.parse("\n".join(lines)).body)}
    wanted |= {"hemagrid.config.hyperband"}  # of tuning.smk
    ours = {name for name in wanted if name.startswith("hemagrid")}
    assert ours
    ours |= {"hemagrid.cli.reruns", "hemagrid.cli.targets"}  # of command.smk
    found = {name.partition(".")[0] for name in reached(*ours)}
    assert found - set(sys.stdlib_module_names) - {"hemagrid", "snakemake"} <= LEAN


@pytest.mark.parametrize("module", TREES)
def test_no_private_name_leaves_its_module(module):
    borrowed = [
        f"{found}.{name}"
        for found, name in imports(ast.walk(TREES[module]))
        if found.startswith("hemagrid") and name and re.match(r"_[a-z]", name)
    ]
    modules = {
        alias.asname or alias.name.rpartition(".")[2]
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            if isinstance(node.value, ast.Name) and node.value.id in modules & OURS:
                borrowed.append(f"{node.value.id}.{node.attr}")
    assert not borrowed


def test_importing_a_room_imports_nothing_else():
    inits = {name for name in TREES if (SCRIPTS / name.replace(".", "/")).is_dir()}
    assert len(inits) == len(ORDER)
    for name in inits - {"hemagrid"}:
        assert not TREES[name].body, name


PATHS = re.compile(r"results/|resources/(weights|keras|smears)")
# Not the holdout: a stage and what the report says of it have the same name.
NAMES = {
    *(names.TEST_AUGMENTED, names.TUNED_ADAMW),
    *(*names.PHASES, *names.CONTROLS),
}


def is_stray(text):
    return text in NAMES or bool(PATHS.search(text)) and " " not in text


def texts(tree):
    """Yield the text constants of a module that are no documentation."""
    documents = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documents:
                yield node.value


@pytest.mark.parametrize("module", sorted(TREES.keys() - {"hemagrid.names"}))
def test_paths_subsets_and_phases_are_named_in_one_place(module):
    assert not [text for text in texts(TREES[module]) if is_stray(text)]


@pytest.mark.parametrize("file", RULE_FILES, ids=lambda file: file.name)
def test_rules_take_their_paths_from_the_library(file):
    code = re.sub(r'^""".*?"""', "", file.read_text(), flags=re.DOTALL)
    code = re.sub(r"#.*|revision\(.*?\)", "", code)
    assert not [text for text in re.findall(r'"([^"\n]*)"', code) if is_stray(text)]


def test_every_file_of_the_library_reaches_a_module():
    # CONTRIBUTING.md says how to write it.
    kinds = ("config/config.yaml", "envs/*.yaml", "profiles/*/bin/*", "scripts/**/*.*")
    kinds += ("workflow/schemas/*",)
    files = {str(path.relative_to(ROOT)) for kind in kinds for path in ROOT.glob(kind)}
    kept = {file for file in files if not re.search(r"__pycache__|egg-info", file)}
    assert set((ROOT / "workflow" / "library.txt").read_text().split()) == kept
