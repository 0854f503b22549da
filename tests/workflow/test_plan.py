"""What is planned, from dry runs alone, and what the workflow's source promises."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
LIBRARY = sorted((ROOT / "scripts" / "hemagrid").rglob("*.py"))

# The rules for other images than BloodMNIST's.
OWN_IMAGES = {"smears", "acquire_test_set", "groups"}

# Prints of every planned job: rule, mem_mb and runtime on the first and second attempt, and how
# many of its params are numbers.
JOBS = """
import json, sys
from datetime import datetime, timedelta
from pathlib import Path
from snakemake.api import (
    ConfigSettings, DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi
)

with SnakemakeApi(OutputSettings(dryrun=True)) as api:
    workflow = api.workflow(
        ResourceSettings(cores=1),
        config_settings=ConfigSettings(
            config={
                "tuning": {"backbones": ["vgg16"]},
                "codabench": {"runs": ["vgg16_tuned"]},
                "ensembles": {"two": {"members": ["baseline_cnn", "vgg16_cfg1"]}},
                "views": ["baseline_cnn"],
                "corruptions": {"kinds": ["bubble"]},
                "replicates": 2,
            }
        ),
        snakefile=Path(sys.argv[1]),
        workdir=Path.cwd(),
    )
    workflow.dag(DAGSettings()).execute_workflow(executor="dryrun")
    jobs = []
    for job in workflow._workflow.dag.jobs:
        amounts = []
        for attempt in (1, 2):
            job.attempt = attempt
            job.reset_params_and_resources()
            amounts.append([job.resources.get(key) for key in ("mem_mb", "runtime")])
            if job.log and attempt == 1:  # killed without a word, at its time limit
                begun = datetime.now() - timedelta(minutes=amounts[0][1])
                log = Path(str(job.log[0]))
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(
                    f"{begun:%Y-%m-%d %H:%M:%S} This attempt has "
                    "mem_mb={}, runtime={}".format(*amounts[0])
                )
        numbers = sum(type(value) in (int, float) for value in job.params)
        jobs.append([job.rule.name, *amounts, numbers])
    print(json.dumps(jobs), file=sys.__stdout__)
"""


# Runs snakemake without numpy and pandas, once its executors are imported: SLURM's needs both.
WITHOUT_NUMPY = """
import sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

ExecutorPluginRegistry()
for name in [*sys.modules]:
    if name.partition(".")[0] in ("numpy", "pandas"):
        del sys.modules[name]
sys.modules.update(numpy=None, pandas=None)
main(sys.argv[1:])
"""


def rules():
    """Map each rule's name to its directives, {directive: text}."""
    found = {}
    for file in RULE_FILES:
        for block in re.split(r"^(?:rule|checkpoint) ", file.read_text(), flags=re.M)[1:]:
            name, body = block.split(":\n", 1)
            parts = re.split(r"^    (\w+):", body, flags=re.M)
            found[name] = dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


RULES = rules()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return tmp_path_factory.mktemp("bare")


@pytest.fixture(scope="module")
def everything(bare, plan, in_folder):
    """The plan of the whole study as published, asked for by the name of its rule."""
    return plan(bare, *in_folder(bare), "all")


def of_runs(planned, rule):
    return {Path(path).parts[1] for path in planned if planned[path] == rule}


def test_a_bare_clone_plans_the_published_grid(clone, snakemake):
    result = snakemake(clone, "-n", "--quiet", "reason")
    assert result.returncode == 0, result.said
    jobs = Counter(
        {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", result.said, re.M)}
    )
    assert (jobs["train"], jobs["predict"], jobs["control"]) == (14, 14, 2)
    assert jobs["evaluate"] == 16
    assert (jobs["embed"], jobs["backbone_weights"]) == (4, 4)
    assert (jobs["fetch_bloodmnist"], jobs["select_finalists"]) == (1, 1)
    # Which they are is known once the grid is trained.
    assert "search" not in jobs
    assert not (clone / "results").exists()


def test_the_published_grid_is_planned_run_by_run(everything):
    transfer = {
        f"{backbone}_cfg{head}"
        for backbone in ("mobilenetv3", "efficientnetv2m", "convnext", "vgg16")
        for head in (1, 2, 3)
    }
    trained = {"baseline_cnn", "regularized_cnn"} | transfer
    controls = {"majority_class", "random_labels"}
    assert of_runs(everything, "train") == trained
    assert of_runs(everything, "control") == controls
    assert of_runs(everything, "evaluate") == trained | controls
    assert len(of_runs(everything, "train")) == 14


def test_replicates_share_splits_caches_and_searches(bare, plan, in_folder):
    config = ["replicates=2", 'tuning={"backbones": ["vgg16"], "adamw": []}']
    planned = plan(bare, *in_folder(bare), "--config", *config)
    trained = of_runs(planned, "train")
    first = {run for run in trained if not run.endswith("_s2")}
    assert len(first) == 15 and trained == first | {f"{run}_s2" for run in first}
    assert of_runs(planned, "predict") == trained
    assert of_runs(planned, "plot_run") == trained
    assert of_runs(planned, "summarize") == first
    rules = Counter(planned.values())
    assert rules["search"] == 2  # the head and its trials
    assert rules["backbone_weights"] == 4 and rules["audit"] == 1
    assert planned["results/tables/replicates.csv"] == "list_replicates"


def test_one_result_plans_only_what_it_needs(clone, plan):
    planned = plan(clone, "results/convnext_cfg1/metrics.json")
    assert planned == {
        "resources/bloodmnist/bloodmnist_128.npz": "fetch_bloodmnist",
        "results/dataset/images.npy": "acquire_dataset",
        "results/dataset/samples.csv": "acquire_dataset",
        "results/dataset/source.json": "acquire_dataset",
        "results/dataset/holdout_found.npy": "acquire_dataset",
        "results/dataset/holdout_found.csv": "acquire_dataset",
        "results/dataset/holdout.npy": "test_set",
        "results/dataset/holdout.csv": "test_set",
        "results/dataset/holdout_left_out.csv": "test_set",
        "results/dataset/phash.csv": "fingerprint",
        "results/dataset/fingerprints.npy": "fingerprint",
        "results/dataset/duplicates.csv": "deduplicate",
        "results/dataset/splits.csv": "split",
        **{
            f"results/dataset/{subset}.{kind}": "augment"
            for subset in ("train", "val", "test_augmented")
            for kind in ("npy", "csv")
        },
        "results/dataset/test.npy": "originals",
        "results/dataset/test.csv": "originals",
        "results/dataset/augmented_copies.csv": "audit_copies",
        "resources/weights/convnext.weights.h5": "backbone_weights",
        "results/trunks/convnext/train.npy": "embed",
        "results/trunks/convnext/val.npy": "embed",
        "results/embeddings/convnext/train.npy": "embed",
        "results/embeddings/convnext/val.npy": "embed",
        "results/embeddings/convnext/cost.json": "embed",
        **{
            f"results/convnext_cfg1/{name}": "train"
            for name in ("model.keras", "history.csv", "cost.json")
        },
        **{
            f"results/convnext_cfg1/predictions/{test_set}.npz": "predict"
            for test_set in ("val", "test", "test_augmented", "holdout")
        },
        "results/convnext_cfg1/latency.json": "predict",
        "results/convnext_cfg1/metrics.json": "evaluate",
        "results/convnext_cfg1/confusion_matrix.csv": "evaluate",
    }


@pytest.mark.parametrize("head", ["tuned", "tuned_adamw"])
def test_a_tuned_run_needs_its_search_and_nothing_of_the_grid(clone, plan, head):
    run = f"vgg16_{head}"
    planned = plan(clone, f"results/{run}/metrics.json")
    untuned = plan(clone, "results/vgg16_cfg1/metrics.json")
    assert planned == {
        f"results/tuning/{run}.json": "search",
        f"results/tuning/{run}_trials.csv": "search",
        **{path.replace("vgg16_cfg1", run): rule for path, rule in untuned.items()},
    }


@pytest.fixture
def overlay(tmp_path):
    """A function from keys of `tuning` to the arguments that lay them over the default."""

    def overlay(**tuning):
        path = tmp_path / "my.yaml"
        path.write_text(yaml.safe_dump({"tuning": tuning}))
        return "--configfile", path

    return overlay


def test_named_finalists_are_planned_from_the_start(clone, plan, overlay):
    planned = plan(
        clone, *overlay(finalists=0, backbones=["vgg16"], adamw=["vgg16", "convnext"])
    )
    tuned = {"vgg16_tuned", "vgg16_tuned_adamw", "convnext_tuned_adamw"}
    assert {run for run in of_runs(planned, "train") if "tuned" in run} == tuned
    searched = {Path(path).stem for path, rule in planned.items() if rule == "search"}
    assert searched == tuned | {f"{run}_trials" for run in tuned}
    assert "select_finalists" in planned.values()


def test_their_searches_need_nothing_of_the_grid(clone, plan, overlay):
    planned = plan(clone, "results/tuning/vgg16_tuned.json", *overlay(backbones=["vgg16"]))
    assert "search" in planned.values()
    assert not {"train", "evaluate", "select_finalists"} & set(planned.values())


def test_a_package_needs_its_run_alone(clone, plan):
    planned = plan(clone, "results/convnext_cfg1/codabench.json")
    assert of_runs(planned, "train") == {"convnext_cfg1"}
    assert planned["results/convnext_cfg1/submission.zip"] == "package_submission"
    assert planned["results/convnext_cfg1/codabench.json"] == "score_submission"
    assert "search" not in planned.values()


def test_without_finalists_nothing_is_tuned(clone, plan, overlay):
    planned = plan(clone, *overlay(finalists=0))
    assert not {"select_finalists", "search", "compare_tuned"} & set(planned.values())


def test_a_cnn_needs_no_backbone(bare, plan, in_folder):
    planned = plan(bare, *in_folder(bare), "results/baseline_cnn/metrics.json")
    assert of_runs(planned, "train") == {"baseline_cnn"}
    assert not {"backbone_weights", "embed"} & set(planned.values())


def test_no_flag_is_needed_to_run(clone, snakemake):
    result = snakemake(clone, "results/provenance/config.yaml")
    assert result.returncode == 0, result.said
    used = yaml.safe_load((clone / "results/provenance/config.yaml").read_text())
    assert used["dataset"]["source"] == "bloodmnist"


def test_a_plan_needs_no_numpy(bare, in_folder, environment):
    command = [sys.executable, "-c", WITHOUT_NUMPY, "--dry-run", "--quiet", *in_folder(bare)]
    done = subprocess.run(
        [*map(str, command)], cwd=bare, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_two_lines_switch_to_the_challenges_file(clone, plan):
    config = clone / "config" / "config.yaml"
    lines = config.read_text().splitlines(keepends=True)
    changed = []
    for line in lines:
        line = re.sub(r"^  source: \w+", "  source: npz", line)
        changed.append(re.sub(r"^  path: \S+", "  path: challenge.npz", line))
    assert sum(old != new for old, new in zip(lines, changed, strict=True)) == 2
    config.write_text("".join(changed))
    (clone / "challenge.npz").touch()

    planned = plan(clone)
    rules_planned = set(planned.values())
    assert "acquire_dataset" in rules_planned
    assert not {"fetch_bloodmnist", "smears"} & rules_planned
    assert "results/dataset/holdout.npy" not in planned
    assert len(of_runs(planned, "train")) == 14


def test_another_head_and_another_backbone_are_config_entries(tmp_path, bare, plan, in_folder):
    config = tmp_path / "more.yaml"
    config.write_text(
        "heads: {wide: {dense: [2048], batch_norm: true, dropout: [0.5],"
        " learning_rate: 1.0e-3}}\n"
        "backbones: {resnet50: {application: ResNet50, weights: imagenet,"
        " top: conv4_block6_out}}\n"
        "grid: {backbones: [resnet50], heads: [wide], cnns: []}\n"
    )
    planned = plan(bare, *in_folder(bare, config))
    assert of_runs(planned, "train") == {"resnet50_wide"}
    assert "resources/weights/resnet50.weights.h5" in planned


def test_lint_is_clean(clone, snakemake):
    result = snakemake(clone, "--lint")
    assert result.returncode == 0, result.said
    assert "in a good condition" in result.said


def test_the_snakefile_reads_as_a_table_of_contents():
    lines = (ROOT / "workflow" / "Snakefile").read_text().splitlines()
    assert len(lines) <= 40
    included = [line.split('"')[1] for line in lines if line.startswith("include:")]
    assert included[:2] == ["rules/library.smk", "rules/common.smk"]
    assert sorted(Path(path).name for path in included) == [f.name for f in RULE_FILES]


@pytest.mark.parametrize("name", RULES)
def test_every_rule_says_all_of_itself(name):
    rule = RULES[name]
    expected = {"output", "log", "benchmark", "conda", "resources", "params"}
    assert expected | {"message", "script"} <= rule.keys()
    assert {"shell", "run"}.isdisjoint(rule)
    script = "plot_run" if name == "plot_combined" else name
    assert rule["script"].strip() == f'"../../scripts/{script}.py"'
    assert (ROOT / "scripts" / f"{script}.py").exists()
    # An entry that starts a line is named, spread from a mapping, or a function's.
    for directive in ("input", "output", "params"):
        for entry in re.findall(r"^        ([^\s#].*)", rule.get(directive, ""), re.M):
            assert re.match(r"\w+=|\*\*|unpack\(|[)\]}]", entry), entry


def test_every_script_has_its_rule():
    assert {script.stem for script in SCRIPTS} == RULES.keys() - {"plot_combined"}


@pytest.fixture(scope="module")
def jobs(bare, environment):
    """[rule, resources of the first attempt, of the second, numbers in params] per job."""
    result = subprocess.run(
        [sys.executable, "-c", JOBS, ROOT / "workflow" / "Snakefile"],
        cwd=bare,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert {name for name, *_ in found} == RULES.keys() - OWN_IMAGES | {"all"}
    return [job for job in found if job[0] != "all"]


def test_a_second_attempt_gets_more_of_what_the_first_lacked(jobs):
    for name, first, second, _ in jobs:
        assert all(0 < a and b == 2 * a for a, b in zip(first, second, strict=True)), name


def test_no_two_params_can_change_places(jobs):
    """Snakemake compares the values of params as a set, without their names."""
    assert not [name for name, *_, numbers in jobs if numbers > 1]


@pytest.mark.parametrize(
    "file", [ROOT / "workflow" / "Snakefile", *RULE_FILES], ids=lambda file: file.name
)
def test_rules_hold_no_function_and_no_platform(file):
    text = file.read_text()
    assert not re.search(r"\blambda\b|\bensure\(", text)
    if file.name != "cluster.smk":  # which reads what the profile says
        assert not re.search(r"partition|account|slurm|/home/|qos", text, re.I)
    if file.name == "common.smk":
        assert len(text.splitlines()) <= 130
    elif file.name not in ("cluster.smk", "runs.smk"):
        assert not re.search(r"^\s*def ", text, re.M)


def test_whatever_is_shown_has_caption_category_and_labels():
    calls = []
    for file in RULE_FILES:
        for call in re.findall(r"report\(\n(.*?)\n +\)", file.read_text(), re.S):
            calls.append(call)
            caption = re.search(r'caption="\.\./(report/\w+\.rst)"', call)
            assert caption, call
            assert (ROOT / "workflow" / caption[1]).read_text().strip()
            assert re.search(r"category=\"\w+\"", call), call
            assert re.search(r"labels=\{\"\w+\": ", call), call
    assert len(calls) == sum(file.read_text().count("report(\n") for file in RULE_FILES)
    used = {re.search(r"(\w+\.rst)", call)[1] for call in calls} | {"workflow.rst"}
    assert used == {path.name for path in (ROOT / "workflow/report").iterdir()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_only_call_the_library(script):
    tree = ast.parse(script.read_text())
    logic = ast.If, ast.For, ast.While, ast.FunctionDef, ast.ClassDef, ast.Try, ast.Lambda
    assert not [node for node in ast.walk(tree) if isinstance(node, logic)]
    assert ast.get_docstring(tree)
    assert isinstance(tree.body[-1], ast.With)


@pytest.mark.parametrize(
    # The command line is there for people who run snakemake.
    "module",
    [module for module in LIBRARY if module.parent.name != "cli"],
    ids=lambda module: module.stem,
)
def test_the_library_knows_nothing_of_snakemake(module):
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Name):
            names.add(node.id)
    assert "snakemake" not in names
