"""The command `hemagrid`: its words, its exit status, and what it refuses."""

import os
import subprocess
import sys
import tomllib
from importlib import import_module

import pytest

from hemagrid.cli import main
from hemagrid.errors import InputError

from .conftest import ROOT, TINY, jobs_of


def test_help_needs_no_imports_and_names_every_command():
    code = (
        "import sys; from hemagrid.cli.main import main; main(['--help']); print(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True
    )
    for command in main.COMMANDS:
        assert f"\n  {command} " in done.stdout
    for library in ("numpy", "pandas", "snakemake", "keras"):
        assert f"'{library}'" not in done.stdout


def test_the_entry_point_is_where_it_says_and_the_version_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, _, function = project["project"]["scripts"]["hemagrid"].partition(":")
    assert getattr(import_module(module), function) is main.main
    module, _, name = project["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(
        "."
    )
    version = getattr(import_module(module), name)
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
    assert "version" not in project["project"]
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_explains_itself_without_keras(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: hemagrid {command} ")


def test_no_command_imports_keras():
    code = (
        "import sys, importlib; from hemagrid.cli.main import COMMANDS\n"
        "for name in COMMANDS: importlib.import_module(f'hemagrid.cli.{name}')\n"
        "print({'keras', 'tensorflow'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pln"], "pln: not a command of hemagrid, expected one of plan, status, "),
        (["pln"], "; did you mean plan?"),
        (["plan", "--configfile", "none.yaml"], "none.yaml: not found"),
        (
            ["submit", "--configfile", "lost.yaml", "vgg16_cfg1"],
            "vgg16_cfg1: not found; targets go before --configfile",
        ),
        (["status", "--directory", "elsewhere"], "elsewhere: not found"),
        (["status", "--directory", "bad.yaml"], "bad.yaml: found a file, expected the folder"),
        (["status", "convnext_cfg1"], "convnext_cfg1: found arguments that are not options"),
        (["plan", "--profile", "nowhere"], "nowhere: found no profile, expected a folder"),
        (["clean", "--bogus"], "unrecognized arguments: --bogus; see hemagrid clean --help"),
        (["plan", "reprot"], "report, all; did you mean report?"),
        (
            ["plan", "results/convnxt_cfg1/metrics.json"],
            "found no run named convnxt_cfg1, expected one of baseline_cnn, ",
        ),
        (
            ["plan", "results/vgg16_cfg1/metric.json"],
            "expected one of model.keras, history.csv, ",
        ),
        (["plan", "results/vgg16_cfg1/metric.json"], "; did you mean metrics.json?"),
        (["plan", "vgg16_cfg1"], "results are results/vgg16_cfg1/metrics.json"),
        (["plan", "--configfile", "lost.yaml"], "dataset.path: found nothing at "),
        (["status", "--configfile", "bad.yaml"], "grid.cnns[0]: found the text 'nonsense'"),
        (["plan", "--configfile", "latin.yaml"], "latin.yaml: cannot be read as YAML ('utf-8'"),
        (["plan", "--configfile", "."], ".: cannot be read as YAML ([Errno 21] Is a directory"),
        (["plan", "--config", "dataset.path=x"], "write `dataset: {path: ...}` in a file"),
        (["plan", "--config", "seed"], "--config seed: "),
        (
            ["submit"],
            "RUN: found nothing, expected a run of config/config.yaml: baseline_cnn, ",
        ),
        (["submit", "vgg17_cfg1"], "vgg16_tuned_adamw; did you mean vgg16_cfg1?"),
        (["clean"], "found no results/dataset/images.npy, expected the folder of a finished "),
        (["report"], "expected a study whose images have been split"),
    ],
)
def test_a_mistake_is_told_in_a_line(tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lost.yaml").write_text("dataset: {source: npz, path: nowhere.npz}")
    (tmp_path / "bad.yaml").write_text("grid: {cnns: [nonsense]}")
    (tmp_path / "latin.yaml").write_bytes(b"dataset: {path: caf\xe9}")
    before = sorted(tmp_path.iterdir())
    assert main.main(words) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("Error: ") and expected in said.err
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != ".snakemake"] == before


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (InputError("a.npz: damaged"), 1, "Error: a.npz: damaged\n"),
        (
            PermissionError(13, "Permission denied", "a"),
            1,
            "Error: a: found no permission to write or read it, expected a study of yours; "
            "copy it (cp -a), or ask its owner\n",
        ),
        (
            PermissionError(13, "Permission denied", "/nonexistent"),
            1,
            "Error: /nonexistent: found no permission to write it, expected a folder for "
            "Snakemake's cache; set XDG_CACHE_HOME to a folder of yours, for every command\n",
        ),
        (
            OSError(30, "Read-only file system", "/nonexistent"),
            1,
            "Error: /nonexistent: found no permission to write it, expected a folder for "
            "Snakemake's cache; set XDG_CACHE_HOME to a folder of yours, for every command\n",
        ),
        (OSError(28, "No space left", "a"), 1, "Error: [Errno 28] No space left: 'a'\n"),
        (
            KeyboardInterrupt(),
            130,
            "Interrupted: this removes the caches that are left: hemagrid clean\n",
        ),
    ],
)
def test_what_ends_a_command_is_told_in_a_line(monkeypatch, capsys, raised, status, line):
    def fail(words):
        raise raised

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr("hemagrid.cli.clean.main", fail)
    assert main.main(["clean"]) == status
    assert capsys.readouterr().err == line


def test_the_plan_and_the_state_of_a_new_study(hemagrid, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    planned = hemagrid("plan", "--configfile", TINY, "--directory", study)
    assert (planned.status, planned.error) == (0, "")
    jobs = jobs_of(planned.out)
    counts = {"train": "4", "embed": "1", "augment": "3", "evaluate": "8"}
    assert {rule: jobs[rule][0] for rule in counts} == counts
    assert planned.out.startswith("4 runs in the grid, ") and jobs["smears"][1] == "local"
    assert "GPU" not in {cells[1] for cells in jobs.values()}
    assert not (study / "results").exists()
    shown = hemagrid("status", "--directory", study, "--configfile", TINY)
    assert (shown.status, shown.error) == (0, "")
    assert shown.out.startswith("6 runs: 6 waiting")
    assert f"The study in {study}, by {TINY}.\nIt has no images yet" in shown.out


def test_a_reader_that_leaves_is_no_error(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "hemagrid.cli.main", "status"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as left:
        left.stdout.close()
        assert left.stderr.read() == "" and left.wait() == 0
