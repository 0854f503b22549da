import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from made_study import ENVIRONMENT, make_study

from hemagrid.data.corruptions import corrupt
from hemagrid.evaluation.comparisons import BETTER, NOT_SHOWN, WORSE
from hemagrid.evaluation.predictions import read_predictions
from hemagrid.io import open_images, read_json, write_json, write_table, write_text
from hemagrid.names import CONTROLS, SUBSET_TITLES, TEST, TEST_AUGMENTED, VAL
from hemagrid.reporting import page as reporting
from hemagrid.reporting.page import write_report
from hemagrid.reporting.pictures import mistakes, picture
from hemagrid.reporting.resources import write_usage
from hemagrid.reporting.tables import list_replicates
from hemagrid.reporting.text import DASH, MINUS, TRAINING_TIME, points

# Would end the script of the page's data if it were not escaped there.
MARKUP = '</script><script>alert("x")</script> & <b>co</b>'
CLASSES = [MARKUP, "basophil", "ig"]
RUNS = {
    "baseline_cnn": 0.4,
    "vgg16_cfg1": 0.85,
    "vgg16_cfg2": None,
    "efficientnetv2m_cfg1": 0.8,
    "efficientnetv2m_cfg2": 0.9,
    "efficientnetv2m_tuned": 0.95,
    "convnext_tuned_adamw": 0.5,
    "majority_class": 0.0,
}
EVALUATED = [run for run, skill in RUNS.items() if skill is not None]
TRAINED = EVALUATED[:-1]
TESTS = (TEST, TEST_AUGMENTED)
VOID = ("br", "img", "link", "meta", "wbr")


class Tree(HTMLParser):
    """Builds the page's tree, and refuses one whose tags are not balanced."""

    def __init__(self, html):
        super().__init__()
        self.builder, self.open = ElementTree.TreeBuilder(), []
        self.feed(html)
        self.close()
        assert not self.open
        self.root = self.builder.close()

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"
        self.builder.end(tag)

    def handle_data(self, data):
        self.builder.data(data)


class Page:
    """A report as its reader meets it: elements, texts and the data of its scripts."""

    def __init__(self, html):
        self.html, self.root = html, Tree(html).root
        charts = gzip.decompress(base64.b64decode(self.by_id("charts").text))
        # A browser reads no NaN.
        self.charts = json.loads(charts, parse_constant=pytest.fail)
        self.album = json.loads(self.by_id("album").text, parse_constant=pytest.fail)

    def all(self, path):
        return self.root.findall(f".//{path}")

    def by_id(self, name):
        return self.root.find(f".//*[@id='{name}']")

    def grid(self):
        """Return the rows of the grid: {name as shown: {heading: cell}}."""
        return rows_of(self.by_id("grid").find(".//table"))

    def warnings(self):
        return [text(p) for p in self.all("main//*[@class='warning']")]


def text(element):
    return " ".join("".join(element.itertext()).split())


def rows_of(table):
    headings = [text(th) for th in table.find("thead/tr")]
    rows = table.findall("tbody/tr")
    return {text(row[0]): dict(zip(headings, row, strict=True)) for row in rows}


def shown_score(score):
    """Spell an accuracy of metrics.json as the report does."""
    return "{:.1f} ({:.1f}–{:.1f})".format(*(100 * score[k] for k in ("value", "low", "high")))


def make(folder, runs, classes=CLASSES, *, select_by=TEST_AUGMENTED, **settings):
    """Make a study without its report: results, inputs, and a function that writes it."""
    inputs = make_study(folder, runs, classes, select_by=select_by, **settings)

    def write(select_by=select_by, **changed):
        out = folder / "report.html"
        write_report(out, inputs | changed, select_by=select_by)
        return Page(out.read_text(encoding="utf-8"))

    def metrics(run):
        return read_json(folder / "results" / run / "metrics.json")

    def config(**changed):
        path = folder / "config.yaml"
        write_text(path, yaml.safe_dump(yaml.safe_load(inputs["config"].read_text()) | changed))
        return path

    return SimpleNamespace(
        results=folder / "results", inputs=inputs, write=write, metrics=metrics, config=config
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with a run of every kind, one of them missing, and a class named in markup."""
    made = make(tmp_path_factory.mktemp("study"), RUNS)
    made.page = made.write()
    return made


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """Two of four runs; no test image of one class; a phase that diverged; random weights."""
    made = make(
        tmp_path_factory.mktemp("unfinished"),
        {"baseline_cnn": 0.4, "vgg16_cfg1": 0.9, "vgg16_cfg2": None, "mobilenetv3_cfg1": None},
        ["basophil", "ig", "platelet"],
        absent=["platelet"],
        select_by=VAL,
    )
    history = pd.read_csv(made.results / "vgg16_cfg1" / "history.csv")
    history.loc[history.index[-1], ["loss", "accuracy", "val_loss", "val_accuracy"]] = np.nan
    write_table(made.results / "vgg16_cfg1" / "history.csv", history)
    weights = {"application": "MobileNetV3Large", "weights": "random"}
    backbones = yaml.safe_load(made.inputs["config"].read_text())["backbones"]
    made.page = made.write(config=made.config(backbones=backbones | {"mobilenetv3": weights}))
    return made


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A function that makes a study of two classes, whose page has no charts, to save time."""

    class NoCharts:
        def __getattr__(self, name):
            return lambda *arguments: None

    monkeypatch.setattr(reporting, "charts", NoCharts())
    return lambda runs, **settings: make(tmp_path, runs, ["basophil", "ig"], **settings)


# The page


@pytest.mark.parametrize("which", ["study", "unfinished"])
def test_the_page_is_well_formed_and_says_what_everything_is(which, request):
    page = request.getfixturevalue(which).page
    ids = [element.get("id") for element in page.root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    links = [a.get("href") for a in page.all("a")]
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)
    shows = [table.get("data-shows") for table in page.all("table[@data-shows]")]
    assert shows and set(shows) <= set(ids)
    assert all(img.get("alt") for img in page.all("img"))
    assert all(th.get("scope") for th in page.all("th"))
    charts = page.all("*[@data-chart]")
    assert sorted(int(c.get("data-chart")) for c in charts) == [*range(len(page.charts))]
    assert all(c.get("role") == "img" and c.get("aria-label") for c in charts)
    assert page.root.get("lang") == "en" and page.all("title")


def test_the_page_is_self_contained_and_runs_our_two_scripts_alone(study):
    page = study.page
    names = ("src", "srcset", "data", "poster", "action", "background")
    loads = [e.get(name) for e in page.root.iter() for name in names if e.get(name)]
    assert loads and all(value.startswith("data:image/") for value in loads)
    tags = {element.tag for element in page.root.iter()}
    assert not {"link", "iframe", "object", "embed", "base", "form"} & tags
    handlers = [n for e in page.root.iter() for n in e.keys() if n.startswith("on")]
    assert not handlers
    (style,) = page.all("style")
    assert "url(" not in style.text and "@import" not in style.text
    assert "://" not in page.by_id("album").text

    (policy,) = page.all("meta[@http-equiv='Content-Security-Policy']")
    allowed = dict(part.split(maxsplit=1) for part in policy.get("content").split("; "))
    scripts = [s.text for s in page.all("script") if not s.get("type")]
    vega = gzip.decompress(base64.b64decode(page.by_id("vega").text)).decode()
    digests = [hashlib.sha256(script.encode()).digest() for script in (*scripts, vega)]
    assert len(scripts) == 1
    assert allowed == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests),
    }


def test_markup_in_names_is_text_everywhere(study):
    page = study.page
    assert len(page.all("script")) == 4
    assert not page.all("main//b[.='co']") and not page.all("b[.='0.1']")
    # The script that holds the data would end at the first "</script" inside.
    assert "<" not in page.by_id("album").text
    for matrix in page.all("table[@class='matrix']"):
        assert [text(th) for th in matrix.find("thead/tr")][1:] == CLASSES
        assert list(rows_of(matrix)) == CLASSES
    assert list(rows_of(page.by_id("data").find(".//table"))) == CLASSES
    assert f"{MARKUP}/cut.png" in [text(th) for th in page.by_id("data").iter("th")]
    assert "<b>0.1</b>" in [text(td) for td in page.by_id("provenance").iter("td")]
    assert json.dumps(MARKUP) in json.dumps(page.charts)


# The numbers


@pytest.mark.parametrize("which", ["study", "unfinished"])
def test_accuracies_with_intervals_are_those_of_the_metrics(which, request):
    made = request.getfixturevalue(which)
    grid = made.page.grid()
    for fold in made.page.by_id("runs").findall("details"):
        run = fold.get("id").removeprefix("run-")
        scores = {s: of["accuracy"] for s, of in made.metrics(run)["subsets"].items()}
        for subset, score in scores.items():
            cell = grid[run][f"{SUBSET_TITLES[subset]} accuracy, %"]
            assert text(cell) == shown_score(score)
            assert float(cell.get("data-value")) == pytest.approx(100 * score["value"])
        said = [f"{SUBSET_TITLES[s]} {shown_score(score)}" for s, score in scores.items()]
        assert text(fold.find("summary")) == f"{run} {', '.join(said)}"


def test_the_other_numbers_of_the_grid_are_those_of_the_metrics(study):
    for run in EVALUATED:
        metrics, row = study.metrics(run), study.page.grid()[run]
        test, augmented = (metrics["subsets"][subset] for subset in TESTS)
        cost = metrics["cost"] or {}
        expected = {
            "test minus augmented, points": 100
            * (test["accuracy"]["value"] - augmented["accuracy"]["value"]),
            "test calibration error, %": 100 * test["calibration_error"],
            "test balanced accuracy, %": 100 * test["balanced_accuracy"]["value"],
            "test macro F1, %": 100 * test["macro_f1"]["value"],
            "parameters": cost.get("parameters"),
            "peak memory, MiB": cost.get("peak_memory_mib"),
            TRAINING_TIME: cost.get("seconds"),
        }
        for name, value in expected.items():
            found = row[name].get("data-value")
            assert (found and float(found)) == (value and pytest.approx(value)), (run, name)
            if value is None:
                assert text(row[name]) == DASH
            elif name.endswith(("%", "points")):
                assert text(row[name]) == f"{value:z.1f}".replace("-", MINUS)
    missing = study.page.grid()["vgg16_cfg2 (missing)"]
    assert {text(cell) for cell in list(missing.values())[1:]} == {DASH}


def test_every_metric_of_every_run_is_on_the_page(study):
    rows = rows_of(study.page.by_id("grid").findall(".//table")[1])
    assert list(rows) == list(RUNS)
    for run in EVALUATED:
        for subset, scores in study.metrics(run)["subsets"].items():
            for key in ("accuracy", "balanced_accuracy", "macro_f1"):
                name = key.replace("_", " ").replace("f1", "F1")
                cell = rows[run][f"{SUBSET_TITLES[subset]} {name}, %"]
                assert text(cell) == shown_score(scores[key])


@pytest.mark.parametrize("which", ["study", "unfinished"])
def test_scores_per_class_are_those_of_the_metrics(which, request):
    made = request.getfixturevalue(which)
    for fold in made.page.by_id("runs").findall("details"):
        metrics = made.metrics(fold.get("id").removeprefix("run-"))
        (table,) = (t for t in fold.iter("table") if t.get("class") != "matrix")
        assert [text(th) for th in table.find("thead/tr")][1:] == [
            SUBSET_TITLES[subset] for subset in metrics["subsets"]
        ]
        rows = {text(row[0]): [text(td) for td in row[1:]] for row in table.findall("tbody/tr")}
        assert list(rows) == metrics["class_names"]
        for name, cells in rows.items():
            expected = []
            for scores in metrics["subsets"].values():
                of = scores["per_class"][name]
                expected += [f"{of[k]:.3f}" for k in ("precision", "recall", "f1")]
                expected += [str(of["support"])]
            if name == "platelet":
                expected = [DASH, DASH, DASH, "0"] * 3
            assert cells == expected


@pytest.mark.parametrize("which", ["study", "unfinished"])
def test_confusion_matrices_are_those_of_the_csv(which, request):
    made = request.getfixturevalue(which)
    matrices = made.page.by_id("runs").findall(".//table[@class='matrix']")
    trained = [path.parent.name for path in made.inputs["confusion"]]
    assert sorted((m.get("data-run"), m.get("data-subset")) for m in matrices) == sorted(
        (run, subset) for run in trained for subset in ("test", "test_augmented")
    )
    for matrix in matrices:
        counts = pd.read_csv(made.results / matrix.get("data-run") / "confusion_matrix.csv")
        counts = counts[counts["subset"] == matrix.get("data-subset")]
        counts = counts["count"].to_numpy().reshape(3, 3)
        assert text(matrix.find("caption")).endswith(f", {counts.sum()} images")
        for true, row in enumerate(matrix.findall("tbody/tr")):
            for predicted, cell in enumerate(row[1:]):
                count = counts[true, predicted]
                if not count:
                    assert not text(cell) and cell.get("data-cell") is None
                    continue
                share = count / counts[true].sum()
                assert cell.get("data-cell") == f"{true},{predicted}"
                assert cell.get("data-count") == str(count)
                assert text(cell) == f"{count}{100 * share:.0f} %"
                assert cell.get("title").startswith(f"{count} of {counts[true].sum()} ")
                assert cell.get("title").endswith(f", {100 * share:.1f} %")
        if which == "unfinished":
            assert counts[2].sum() == 0  # no image of platelets: an empty row


def test_the_best_of_our_runs_in_a_column_is_marked(study):
    grid = study.page.grid()
    ours = {run: grid[run] for run in TRAINED}
    low = ("test calibration", "parameters", "training", "peak")
    columns = list(grid["baseline_cnn"])[1:]
    assert len(columns) > 9
    for name in columns:
        # No package of ours was scored, and a run that knows nothing has a small gap.
        if name in ("Codabench, %", "test minus augmented, points"):
            assert not any(row[name].get("class") for row in grid.values())
            continue
        values = {run: float(row[name].get("data-value")) for run, row in ours.items()}
        best = min(values.values()) if name.startswith(low) else max(values.values())
        marked = {run for run, row in grid.items() if row[name].get("class") == "top"}
        assert marked == {run for run, value in values.items() if value == best}, name


def test_published_rows_follow_ours_of_the_same_model(study, small):
    assert list(study.page.grid()) == [
        "baseline_cnn",
        "published: baseline_cnn",
        "vgg16_cfg1",
        "published: VGG16 cfg1",
        "vgg16_cfg2 (missing)",
        "efficientnetv2m_cfg1",
        "efficientnetv2m_cfg2",
        "efficientnetv2m_tuned",
        "published: EfficientNetV2M tuned",
        "convnext_tuned_adamw",
        "published: ConvNeXtBase tuned_adamw",
        "majority_class",
        # Without a run of ours.
        "published: regularized_cnn",
        "published: MobileNetV3 cfg3",
        "published: EfficientNetV2M cfg3",
        "published: ConvNeXtBase cfg1",
        "published: ConvNeXtBase tuned",
    ]
    theirs = study.page.grid()["published: VGG16 cfg1"]
    assert text(theirs["test accuracy, %"]) == "96.4"
    assert text(theirs["test minus augmented, points"]) == "25.4"
    assert text(theirs["Codabench, %"]) == "80.0"
    assert text(theirs["parameters"]) == DASH


def test_without_published_numbers_none_are_mentioned(small):
    page = small({"baseline_cnn": 0.5}, published=False).write()
    assert list(page.grid()) == ["baseline_cnn"]
    main = "".join(text(section) for section in page.all("section")[:-1])
    assert "ublished" not in main.replace("in the published study", "")


def test_backbones_are_matched_by_application_whatever_their_names(small):
    backbones = {"convnext": "VGG16", "mine": "ConvNeXtBase"}
    entries = {n: {"application": a, "weights": "imagenet"} for n, a in backbones.items()}
    made = small(
        {"convnext_cfg1": 0.5, "mine_cfg1": 0.9},
        backbones=entries,
        grid={"backbones": list(backbones)},
    )
    page = made.write()
    assert list(page.grid())[:4] == [
        "convnext_cfg1",
        "published: VGG16 cfg1",
        "mine_cfg1",
        "published: ConvNeXtBase cfg1",
    ]
    best = rows_of(list(page.by_id("published").iter("table"))[1])
    assert text(best["convnext"]["published test, %"]) == "96.4"
    assert text(best["mine"]["published test, %"]) == "98.1"
    scores = page.by_id("answer").findall(".//div[@class='score']")
    assert text(scores[0]).endswith("published: 98.1 (cfg1)")


# The answer


def test_the_answer_names_the_winner_its_scores_and_the_published_number(study):
    accuracies = {
        run: study.metrics(run)["subsets"][TEST_AUGMENTED]["accuracy"]["value"]
        for run in TRAINED
    }
    best = max(accuracies, key=accuracies.get)
    answer = study.page.by_id("answer")
    assert text(answer.find("h2")) == best
    assert best in text(study.page.all("title")[0])
    assert "by accuracy on the augmented test images" in text(answer)
    scores = study.metrics(best)["subsets"]
    shown = answer.findall(".//div[@class='score']")
    for element, subset in zip(shown, TESTS, strict=True):
        score = scores[subset]["accuracy"]
        low, high = (f"{100 * score[k]:.1f}" for k in ("low", "high"))
        assert text(element.find("b")) == f"{100 * score['value']:.1f} %"
        images = f"{scores[subset]['n']} images"
        assert f"{SUBSET_TITLES[subset]} accuracy interval {low}–{high}, {images}" in text(
            element
        )
    assert study.page.by_id(f"run-{best}").get("open") is not None
    assert len(study.page.by_id("runs").findall("details[@open]")) == 1


def test_runs_that_chance_may_explain_are_named(study):
    winner = pd.read_csv(study.inputs["winner"])
    said = text(study.page.by_id("answer"))
    others = winner["run"].nunique()
    assert others == len(TRAINED) - 1
    chance = winner[winner["verdict"] == NOT_SHOWN]
    assert 0 < len(chance) < len(winner)
    for subset, rows in chance.groupby("subset"):
        are = "is" if len(rows) == 1 else "are"
        assert (
            f"On the {SUBSET_TITLES[subset]} images, {len(rows)} of {others} other runs {are} "
            f"not shown to differ from it: {', '.join(rows['run'])}."
        ) in said
    table = study.page.by_id("answer").find(".//table")
    rows = [[text(cell) for cell in row] for row in table.findall("tbody/tr")]
    assert [(row[0], row[-1]) for row in rows] == list(
        zip(winner["run"], winner["verdict"], strict=True)
    )


@pytest.mark.parametrize(
    ("runs", "published"),
    [
        # Best with another head than the published one.
        ({"vgg16_cfg2": 0.9, "baseline_cnn": 0.1}, ["96.4 (cfg1)", "71.0 (cfg1)"]),
        # The published study gives no accuracy on clean test images for it.
        ({"convnext_tuned": 0.95, "convnext_tuned_adamw": 0.5}, [None, "76.8"]),
    ],
)
def test_a_winner_stands_beside_the_published_number_of_its_model(small, runs, published):
    answer = small(runs).write().by_id("answer")
    scores = [text(score) for score in answer.findall(".//div[@class='score']")]
    found = [score.partition("published: ")[2] or None for score in scores]
    assert found == published


def test_a_clear_winner_is_called_one(small):
    page = small({"baseline_cnn": 0.0, "vgg16_cfg1": 1.0}, per_class=40).write()
    said = text(page.by_id("answer"))
    for images in ("test", "augmented test"):
        assert (
            f"On the {images} images, the other run, baseline_cnn, is shown to be worse."
            in said
        )
    assert "not shown to differ from it" not in page.html and "the same accuracy" not in said
    assert "It is also the cheapest run that is not shown to be worse on any test set" in said


def test_a_tie_is_told(small):
    said = text(small({"baseline_cnn": 1.0, "vgg16_cfg1": 1.0}).write().by_id("answer"))
    assert "vgg16_cfg1 has the same accuracy there, and the first run in the grid is" in said


def test_a_run_that_guesses_is_not_crowned(small):
    runs = {"baseline_cnn": 0.1, "vgg16_cfg1": 0.05} | dict.fromkeys(CONTROLS, 0.0)
    answer = small(runs, per_class=8).write().by_id("answer")
    said = text(answer)
    assert text(answer.find("h2")) == "No run is shown to beat guessing"
    assert "has the highest accuracy, but is not shown to beat both controls" in said
    for images in ("test", "augmented test"):
        assert f"On the {images} images it is not shown to be better than guessing: " in said
    assert "cheapest" not in said


def test_the_box_says_what_guessing_reaches_and_which_run_is_cheap(study):
    controls = pd.read_csv(study.inputs["controls"])
    best = text(study.page.by_id("answer").find("h2"))
    said = text(study.page.by_id("answer"))
    for subset, rows in controls[controls["run"] == best].groupby("subset"):
        row = rows.loc[rows["gain_points"].idxmin()]
        spelled = points(row.gain_points, row.gain_points_low, row.gain_points_high)
        assert (
            f"On the {SUBSET_TITLES[subset]} images it is better than guessing: {spelled} "
            f"against {row.compared_with}"
        ) in said
    winner = pd.read_csv(study.inputs["winner"])
    worse = set(winner.loc[winner["verdict"] == WORSE, "run"])
    cost = {run: study.metrics(run)["cost"]["seconds"] for run in {*TRAINED} - worse}
    cheapest = min(cost, key=cost.get)
    assert f"that is not shown to be worse on any test set is {cheapest}: " in said
    assert "It cannot say how accurate a run is in another laboratory, on a new patient" in said


def test_drawn_cells_are_called_drawn(small):
    made = small({"baseline_cnn": 0.5, "vgg16_cfg1": 0.9})
    source = {"source": "smears", "path": None}
    page = made.write(config=made.config(dataset=source, published=True))
    assert any("say nothing about real cells" in warning for warning in page.warnings())
    answer = text(page.by_id("answer"))
    assert "which a program drew" in answer and "how accurate a run is on real cells" in answer
    assert not any(row.startswith("published: ") for row in page.grid())


# What weakens a result


def test_what_intervals_cover_is_said_and_replicates_are_listed(small, tmp_path):
    made = small({"baseline_cnn": 0.5, "regularized_cnn": 0.99})
    once = text(made.write().by_id("answer"))
    assert "each run was trained once (replicates: 1)" in once and "range" not in once
    content = made.metrics("regularized_cnn")
    for scores in content["subsets"].values():
        scores["accuracy"] |= {"least": 0.9, "most": 0.96, "seed_share": 0.25}
    content["replicates"] = ["regularized_cnn", "regularized_cnn_s2"]
    summary = tmp_path / "regularized_cnn" / "replicates.json"
    write_json(summary, content)
    seeds = {"regularized_cnn": ("regularized_cnn", 1, 42)}
    first = made.results / "regularized_cnn" / "metrics.json"
    list_replicates([first], seeds, tmp_path / "replicates.csv")
    metrics = [made.results / "baseline_cnn" / "metrics.json", summary]
    page = made.write(metrics=metrics, replicates=tmp_path / "replicates.csv")
    answer = text(page.by_id("answer"))
    assert "2 replicates: 90.0–96.0" in answer and "25 % seed, 75 % images" in answer
    assert "They leave out the seed of baseline_cnn" in answer
    assert "Every replicate of every run" in text(page.by_id("grid"))
    assert "means over 2 replicates" in text(page.by_id("run-regularized_cnn"))
    assert "Two replicates hardly tell" in answer


def test_a_choice_on_test_images_is_called_one(study, unfinished):
    assert any(
        w.startswith("Chosen on test images.") and "augmented test images" in w
        for w in study.page.warnings()
    )
    claims = text(study.page.by_id("claims"))
    assert "were chosen by accuracy on augmented test images" in claims
    assert not any("test images" in w for w in unfinished.page.warnings())
    assert "by accuracy on the validation images" in text(unfinished.page.by_id("answer"))
    assert "were chosen on validation images" in text(unfinished.page.by_id("claims"))


def test_random_weights_are_warned_of(study, unfinished):
    assert not any("Random weights" in w for w in study.page.warnings())
    (warning,) = (w for w in unfinished.page.warnings() if w.startswith("Random weights."))
    assert "mobilenetv3 started from random weights" in warning and "vgg16" not in warning


GROUPS = {
    "count": 41,
    "images": {"min": 1, "median": 7.5, "max": 90},
    "splits": {"train": 25, "val": 8, "test": 8},
    "units": 40,
    "units_per_split": {"train": 24, "val": 8, "test": 8},
    "largest": {"count": 41, "examples": [{"group": "<P1>", "images": 90, "split": "train"}]},
    "joined": {"count": 1, "examples": [{"groups": ["<P1>", "P2"], "size": 97}]},
}


def test_groups_are_described_and_their_lack_is_warned_of(small):
    made = small({"baseline_cnn": 0.5})

    def dataset(source):
        config = yaml.safe_load(made.inputs["config"].read_text())["dataset"]
        return made.config(dataset=config | {"source": source})

    for source, said in (
        ("folder", "The config does not say (dataset: groups) which patient"),
        ("bloodmnist", "BloodMNIST does not say which patient"),
        ("smears", "Drawn pictures are of no patient"),
    ):
        page = made.write(config=dataset(source))
        assert said in text(page.by_id("claims"))
        warned = [w for w in page.warnings() if w.startswith("Patients unknown.")]
        assert len(warned) == (source == "folder")
    audit = read_json(made.inputs["audit"]) | {"groups": GROUPS}
    write_json(made.inputs["audit"], audit)
    page = made.write(config=dataset("folder"))
    said = text(page.by_id("groups"))
    assert "of 41 groups (dataset: groups) of 1 to 90 images, in the median 7.5." in said
    assert "25 are in train, 8 are in val, 8 are in test." in said and "leaves 40." in said
    claims = text(page.by_id("claims"))
    assert "of 8 independent groups, which is few" in claims and "Split by image" not in claims
    assert not [w for w in page.warnings() if w.startswith("Patients unknown.")]
    assert "<P1>" in text(page.by_id("data"))


def test_missing_runs_are_named(unfinished):
    page = unfinished.page
    said = "Incomplete. 2 of 4 runs are missing: vgg16_cfg2, mobilenetv3_cfg1."
    assert said in page.warnings()
    assert "2 of 4 runs and controls are evaluated" in text(page.all("header")[0])
    missing = [run for run in page.grid() if run.endswith(" (missing)")]
    assert missing == ["vgg16_cfg2 (missing)", "mobilenetv3_cfg1 (missing)"]
    folds = page.by_id("runs").findall("details")
    assert [f.get("id") for f in folds] == ["run-vgg16_cfg1", "run-baseline_cnn"]


def test_runs_that_were_not_made_alike_are_named(small):
    made = small({"baseline_cnn": 0.5, "vgg16_cfg1": 0.7, "vgg16_cfg2": 0.6})
    assert made.write().by_id("different") is None
    metrics = made.metrics("vgg16_cfg1")
    metrics["cost"]["environment"] |= {"device": "cpu", "cpu": "another"}
    write_json(made.results / "vgg16_cfg1" / "metrics.json", metrics)
    page = made.write()
    (warning,) = (w for w in page.warnings() if w.startswith("Not made alike."))
    assert "differ in more than the model: device." in warning
    rows = [[text(cell) for cell in row] for row in page.by_id("different").iter("tr")][1:]
    assert rows == [
        ["device", "gpu", "baseline_cnn, vgg16_cfg2"],
        ["device", "cpu", "vgg16_cfg1"],
    ]


def test_the_record_is_of_the_runs_and_the_last_command_is_called_one(study):
    section = study.page.by_id("provenance")
    made_with, command, checksums = section.findall(".//table")
    rows = {text(row[0]): [text(td) for td in row[1:]] for row in made_with.find("tbody")}
    assert rows["commit"] == ["0123abc", f"all {len(TRAINED)} runs"]
    assert rows["keras"][0] == ENVIRONMENT["packages"]["keras"]
    assert rows["processor"][0] == ENVIRONMENT["cpu"]
    assert "The last command" in [text(h3) for h3 in section.iter("h3")]
    facts = read_json(study.inputs["study"])
    assert facts["host"]["cpu"] in text(command) and facts["written"] in text(command)
    (checksum,) = pd.read_csv(study.inputs["checksums"])["sha256"]
    assert checksum in text(checksums)
    config = section.find(".//pre").text
    assert config == study.inputs["config"].read_text(encoding="utf-8")


@pytest.mark.parametrize("runs", [{"vgg16_cfg1": None}, {"majority_class": 0.0}])
def test_a_study_without_a_trained_run_still_has_a_page(small, runs):
    page = small(runs).write()
    said = text(page.by_id("answer"))
    assert "No run has been evaluated on the augmented test images yet." in said
    assert "kept" in text(page.by_id("data")) and page.by_id("explanation") is None
    assert not page.all("tr[@class='best']") and not page.all("td[@class='top']")
    assert "No run has this on record." in text(page.by_id("provenance"))


def test_parts_without_a_file_are_left_out(small):
    made = small({"vgg16_cfg1": 0.8})
    optional = ("study", "checksums", "contact_sheet", "explanation", "images_test", "copies")
    optional += ("corruptions", "corruption_summary")
    for name in optional:
        del made.inputs[name]
    page = made.write()
    assert page.by_id("explanation") is None and page.by_id("corruptions") is None
    assert not page.all("h3[.='The last command']") and "SHA-256" not in page.html
    assert list(page.album["cells"]["vgg16_cfg1"]) == [TEST_AUGMENTED]


def test_pictures_of_other_images_are_not_shown(small):
    made = small({"vgg16_cfg1": 0.8})
    page = made.write(images_test=made.inputs["images_test_augmented"])
    assert list(page.album["cells"]["vgg16_cfg1"]) == [TEST_AUGMENTED]
    assert any(w.startswith("Without pictures.") and "(test)" in w for w in page.warnings())


def test_epochs_that_diverged_are_gaps_in_the_curves(unfinished):
    charts = unfinished.page.by_id("run-vgg16_cfg1").findall(".//div[@data-chart]")
    assert len(charts) == 3
    curves = unfinished.page.charts[int(charts[0].get("data-chart"))]
    rows = [row for data in curves["datasets"].values() for row in data]
    last = [
        row["value"]
        for row in rows
        if (row.get("phase"), row.get("epoch")) == ("finetune all", 3)
    ]
    assert last and set(last) == {None}
    assert any(row.get("value") for row in rows)


def test_abstention_has_its_section(study):
    section = study.page.by_id("abstention")
    assert len(section.findall(".//div[@data-chart]")) == 1
    rows = [[text(cell) for cell in row] for row in section.findall(".//tbody/tr")]
    networks = [run for run in EVALUATED if study.metrics(run)["kind"] != "control"]
    assert [row[0] for row in rows] == [run for run in networks for _ in TESTS]
    for run, _, temperature, before, after, *_ in rows[:1]:
        metrics = study.metrics(run)
        scores = metrics["subsets"][TESTS[0]]
        assert temperature == f"{metrics['temperature']:.2f}"
        assert before == f"{100 * scores['calibration_error']:.1f}"
        assert after == f"{100 * scores['scaled_calibration_error']:.1f}"


def test_ensembles_and_views_stand_beside_the_best_run(small):
    page = small({"vgg16_cfg1": 0.7, "ensemble": 0.98, "vgg16_cfg1+views": 0.72}).write()
    answer = text(page.by_id("answer"))
    assert text(page.by_id("answer").find("h2")) == "vgg16_cfg1"  # not the better ensemble
    assert "There is no other run to compare it with" in answer
    said = r"ensemble, the mean of one, other: \S+ \(\S+\) on the test images, \+\S+ points "
    assert re.search(said + r"\(\S+ to \S+\) against the best run, (not|better)", answer)
    assert "vgg16_cfg1+views, the mean of vgg16_cfg1 over 8 views of each image" in answer
    assert {"ensemble", "vgg16_cfg1+views"} < page.grid().keys()
    fold = page.by_id("run-vgg16_cfg1+views")
    assert "Nothing was trained for it" in text(fold)
    assert not page.by_id("different")


# The published study, tuning, Codabench


def test_the_published_tables_stand_beside_ours(study):
    published = study.page.by_id("published")
    heads, best, _ = published.iter("table")
    assert text(rows_of(heads)["cfg1"]["Dense"]) == "128"
    assert text(rows_of(heads)["cfg1"]["published Dense"]) == "none"
    rows = rows_of(best)
    # A tuned head competes with none of the grid.
    assert list(rows) == ["baseline_cnn", "vgg16", "efficientnetv2m"]
    for model, run in (("vgg16", "vgg16_cfg1"), ("baseline_cnn", "baseline_cnn")):
        score = study.metrics(run)["subsets"]["test"]["accuracy"]
        assert text(rows[model]["test accuracy, %"]) == shown_score(score)
    assert text(rows["vgg16"]["published test, %"]) == "96.4"


def test_figure_1_is_the_best_efficientnet_of_the_grid(study, small):
    accuracies = {
        run: study.metrics(run)["subsets"][TEST_AUGMENTED]["accuracy"]["value"]
        for run in ("efficientnetv2m_cfg1", "efficientnetv2m_cfg2")
    }
    figure = study.page.by_id("published").find(".//table[@class='matrix']")
    assert figure.get("data-run") == max(accuracies, key=accuracies.get)
    assert figure.get("data-subset") == TEST_AUGMENTED
    page = small({"vgg16_cfg1": 0.5, "efficientnetv2m_tuned": 0.9}).write()
    assert "no run of EfficientNetV2M" in text(page.by_id("published"))


def test_tuning_has_its_section(study):
    section = study.page.by_id("tuning")
    assert study.page.all("a[@href='#tuning']")
    gain = pd.read_csv(study.inputs["tuning_gain"])
    assert list(gain["subset"]) == ["test", "test_augmented"]
    said = {BETTER: "helped", WORSE: "made it worse"}
    said[NOT_SHOWN] = "is not shown to make a difference"
    for item, row in zip(section.findall("ul/li"), gain.itertuples(), strict=True):
        points = [
            f"{p:+z.1f}".replace("-", MINUS)
            for p in (row.gain_points, row.gain_points_low, row.gain_points_high)
        ]
        p = f"= {row.p_holm:.3f}" if row.p_holm >= 0.001 else "below 0.001"
        assert text(item) == (
            f"Tuning efficientnetv2m {said[row.verdict]} on the {SUBSET_TITLES[row.subset]} "
            f"images: {points[0]} points ({points[1]} to {points[2]}) against "
            f"{row.compared_with}, p {p}."
        )
    # The backbone of the other search has no untuned run.
    assert "Tuning convnext" not in text(section)
    assert [text(h4) for h4 in section.iter("h4")] == [
        "efficientnetv2m_tuned",
        "convnext_tuned_adamw",
    ]
    folds = section.findall("details")
    assert len(folds) == 2 and len(section.findall(".//div[@data-chart]")) == 2
    for fold in folds:
        assert "3 trials, 8 epochs, 1 min 05 s" in text(fold.find("summary"))
        best = fold.findall(".//tr[@class='best']")
        assert [text(row[0]) for row in best] == ["3"]
        assert "384, 128" in [text(td) for td in fold.iter("td")]
    tables = [rows_of(t) for t in section.iter("table")]
    assert any(
        text(t["efficientnetv2m_tuned"]["published Dense"]) == "384, 128"
        for t in tables
        if "published Dense" in t.get("efficientnetv2m_tuned", {})
    )
    flattered = [w for w in study.page.warnings() if "flattered" in w]
    assert len(flattered) == 1 and "augmented test images" in flattered[0]


def test_how_finalists_were_chosen_is_said(small, tmp_path):
    made = small({"vgg16_cfg1": 0.7, "vgg16_tuned": 0.8}, select_by=VAL)
    page = made.write()
    assert "vgg16: the best by accuracy on the validation images" in text(page.by_id("tuning"))
    assert not any("test images" in w or "flattered" in w for w in page.warnings())
    chosen = read_json(made.inputs["finalists"])
    path = tmp_path / "finalists.json"
    write_json(path, chosen | {"missing": ["vgg16_cfg3"]})
    page = made.write(finalists=path)
    assert "Not in the choice, because they have no metrics yet: vgg16_cfg3." in page.warnings()
    write_json(path, chosen | {"chosen_by": "config", "ranking": []})
    page = made.write(finalists=path)
    assert "vgg16: named in the configuration" in text(page.by_id("tuning"))


def test_without_tuning_there_is_no_such_section(unfinished):
    assert unfinished.page.by_id("tuning") is None
    assert "No head was tuned in this study." in text(unfinished.page.by_id("published"))


def test_a_local_score_is_never_called_codabench(small, tmp_path):
    scored = tmp_path / "baseline_cnn" / "codabench.json"
    write_json(scored, {"accuracy": {"value": 0.204}, "set": "data/hidden.npz"})
    made = small({"baseline_cnn": 0.4, "vgg16_cfg1": 0.8})
    config = made.config(codabench={"scores": {"vgg16_cfg1": 81.2}})
    grid = made.write(config=config, codabench=[scored]).grid()
    local = "local score (images), %"
    assert text(grid["baseline_cnn"][local]) == "20.4 (hidden.npz)"
    assert text(grid["baseline_cnn"]["Codabench, %"]) == DASH
    assert text(grid["vgg16_cfg1"]["Codabench, %"]) == "81.2"
    assert text(grid["vgg16_cfg1"][local]) == DASH


def test_accuracy_by_policy_has_its_section(small):
    made = small({"baseline_cnn": 0.4, "vgg16_cfg1": 0.9}, blank=[0, 2, 4, 6, 7], per_class=30)
    page = made.write()
    section = page.by_id("policies")
    assert [h.text for h in section.iter("h3")] == [
        "Augmented test images",
        "Validation images",
    ]
    assert "Blank copies: 4 of 60 by RandAugment, 1 of 60 by AugMix." in text(section)
    shown, on_val = (rows_of(table) for table in section.iter("table"))
    assert shown.keys() == on_val.keys() == {"baseline_cnn", "vgg16_cfg1"}
    for run, row in shown.items():
        found = made.metrics(run)["subsets"]["test_augmented"]["policies"]
        assert {name: text(cell) for name, cell in row.items()} == {
            "run": run,
            "all copies, %": shown_score(found["all"]["accuracy"]),
            "RandAugment, %": shown_score(found["randaugment"]["accuracy"]),
            "AugMix, %": shown_score(found["augmix"]["accuracy"]),
            "without blank copies, %": shown_score(found["all"]["without_blank"]),
        }


def test_blank_copies_are_counted_and_not_shown(small):
    made = small({"baseline_cnn": 0.4}, blank=[0, 2, 4, 6, 7])
    page = made.write()
    for part in ("runs", "explanation"):
        assert "5 of 48 augmented test copies are blank" in text(page.by_id(part))
    uris = [picture(of) for of in open_images(made.inputs["images_test_augmented"])]
    seen = [uris.index(uri) for uri in page.album["pictures"] if uri in uris]
    assert seen and not {0, 2, 4, 6, 7} & set(seen)
    counts = rows_of(page.by_id("data").findall(".//table")[-1])
    assert "of its pixel values is below 1 of 255" in text(page.by_id("data"))
    assert text(counts["augmented test"]["blank copies"]) == "1"


# Pictures


def test_a_cell_of_a_matrix_opens_its_own_images(study):
    pictures, cells = study.page.album["pictures"], study.page.album["cells"]
    assert set(cells) == set(EVALUATED) and len(pictures) == len(set(pictures))
    images = {s: open_images(study.inputs[f"images_{s}"]) for s in TESTS}
    for run in TRAINED:
        _, subsets = read_predictions((study.results / run).glob("predictions/*"))
        for subset in TESTS:
            labels, probabilities, _ = subsets[subset]
            uris = [picture(image) for image in images[subset]]
            assert len(set(uris)) == len(uris)
            predicted = probabilities.argmax(axis=1)
            of_cells = set(zip(labels.tolist(), predicted.tolist(), strict=True))
            assert {f"{t},{p}" for t, p in of_cells} == set(cells[run][subset])
            for true, answer in of_cells:
                chosen = cells[run][subset][f"{true},{answer}"]
                rows = [uris.index(pictures[number]) for number, _ in chosen]
                inside = np.flatnonzero((labels == true) & (predicted == answer))
                assert set(rows) <= set(inside.tolist()) and len(set(rows)) == len(rows)
                assert len(rows) == min(len(inside), 6)
                sure = [confidence for _, confidence in chosen]
                assert sure == pytest.approx(100 * probabilities[rows].max(axis=1), abs=0.051)


def test_the_winner_chooses_its_pictures_first(study):
    # So that it has the most confident ones, whatever the others have.
    winner = study.page.by_id("runs").find("details").get("id").removeprefix("run-")
    _, subsets = read_predictions((study.results / winner).glob("predictions/*"))
    labels, probabilities, _ = subsets["test"]
    right = (labels == 1) & (probabilities.argmax(axis=1) == 1)
    surest = np.sort(100 * probabilities[right].max(axis=1))[::-1][:6]
    chosen = study.page.album["cells"][winner]["test"]["1,1"]
    assert [confidence for _, confidence in chosen] == pytest.approx(surest, abs=0.051)


def test_of_too_many_runs_the_page_has_the_best_and_links_to_the_others(small, monkeypatch):
    monkeypatch.setattr(reporting, "LISTED", 3)
    monkeypatch.setattr(reporting, "DETAILED", 2)
    skills = {f"vgg16_cfg{n}": 0.15 * n for n in range(1, 6)}
    made = small(skills | dict.fromkeys(CONTROLS, 0.0), select_by=TEST)
    page = made.write(TEST)
    by_accuracy = sorted(
        skills, key=lambda run: -made.metrics(run)["subsets"][TEST]["accuracy"]["value"]
    )
    assert set(page.grid()) >= {*skills, *CONTROLS}

    folds = page.by_id("runs").findall("details")
    detailed = [fold.get("id") for fold in folds if fold.get("id")]
    assert sorted(detailed) == sorted(f"run-{run}" for run in by_accuracy[:2])
    (others,) = [fold for fold in folds if not fold.get("id")]
    assert [item.get("id") for item in others.iter("li")] == [
        f"run-{run}" for run in (*skills, *CONTROLS) if f"run-{run}" not in detailed
    ]
    links = {a.get("href") for a in others.iter("a")}
    for run in by_accuracy[2:]:
        assert f"{run}/metrics.json" in links and (made.results / run / "metrics.json").exists()
        assert f"{run}/confusion_matrix.svg" in links and f"{run}/README.md" in links
    assert "random_labels/metrics.json" in links
    assert "random_labels/confusion_matrix.svg" not in links

    (full,) = [
        fold for fold in page.all("details") if text(fold).startswith("Every metric of every")
    ]
    assert set(rows_of(full.find(".//table"))) == {*by_accuracy[:3], *CONTROLS}
    assert "results/tables/grid.csv has every run" in text(full)


def test_a_full_album_leaves_cells_without_pictures(study, small, monkeypatch):
    monkeypatch.setattr(reporting, "PICTURES", 5)
    page = study.write()
    assert len(page.album["pictures"]) == 5
    shown = [
        number
        for run in page.album["cells"].values()
        for subset in run.values()
        for cell in subset.values()
        for number, _ in cell
    ]
    assert set(shown) == set(range(5))
    assert len(page.all("td[@data-cell]")) == len(study.page.all("td[@data-cell]"))


def test_the_most_confident_mistakes_are_shown(study):
    images = open_images(study.inputs["images_test"])
    for run in TRAINED:
        _, subsets = read_predictions((study.results / run).glob("predictions/*"))
        labels, probabilities, _ = subsets["test"]
        rows = mistakes(labels, probabilities, 12)
        figures = study.page.by_id(f"run-{run}").findall(".//figure[@class='narrow']")
        assert [f.find("img").get("src") for f in figures] == [picture(images[r]) for r in rows]
        for figure, row in zip(figures, rows, strict=True):
            answer = probabilities[row].argmax()
            assert text(figure) == (
                f"{CLASSES[labels[row]]} taken for {CLASSES[answer]}, "
                f"{100 * probabilities[row, answer]:.1f} % sure"
            )


def test_a_run_without_mistakes_says_so(small):
    page = small({"vgg16_cfg1": 1.0}).write()
    assert "It makes no mistake on the test images." in text(page.by_id("run-vgg16_cfg1"))
    assert "There is no other run to compare it with." in text(page.by_id("answer"))


def test_what_corruptions_cost_is_said_and_shown(study):
    section = study.page.by_id("corruptions")
    summary = pd.read_csv(study.inputs["corruption_summary"]).set_index("run")
    table = pd.read_csv(study.inputs["corruptions"])
    assert list(summary.index) == TRAINED and len(table) == 4 * len(TRAINED)
    most = summary.loc[summary["mean_fall_points"].idxmax()]
    largest = table.loc[table["fall_points"].idxmax()]
    said = text(section)
    assert "Over 2 kinds of corruptions at severities 1, 5 of 5" in said
    assert f"{most.name} falls most, by {most['mean_fall_points']:.1f} points" in said
    assert f"that of {largest['run']} by saturate at severity 5: " in said
    assert "a run regularized_cnn, which this study lacks" in said
    assert f"Every kind and severity {len(table)} rows" in said
    assert "are simulated" in text(study.page.by_id("claims"))
    figures = section.findall(".//figure[@class='narrow']")
    assert [text(figure) for figure in figures[:3]] == ["as it is", "severity 1", "severity 2"]
    assert len(figures) == 1 + 2 * 5
    image = open_images(study.inputs["images_test"])[:1]
    worst = picture(corrupt(image, [0], "saturate", 5, 42)[0])
    assert figures[-1].find("img").get("src") == worst


def test_corruption_errors_are_in_shares_of_the_regularized_cnn(small):
    section = small({"regularized_cnn": 0.6, "vgg16_cfg1": 0.9}).write().by_id("corruptions")
    assert "below 100 %, a run errs less than it" in text(section)
    rows = rows_of(section.find(".//table"))
    assert text(rows["regularized_cnn"]["mean corruption error, %"]).startswith("100.0 (100.0–")


def test_images_that_are_hard_for_all_runs_are_shown_with_their_files(study, tmp_path):
    section = study.page.by_id("images")
    listed = pd.read_csv(study.inputs["hard_images"])
    shown = section.findall(".//figure")
    assert text(shown[0].find("figcaption")).endswith(listed["source"][0].replace("  ", " "))
    assert "None of 36 labels" in text(section)
    noisy = tmp_path / "label_noise.csv"
    write_table(noisy, listed[:2])
    section = study.write(label_noise=noisy).by_id("images")
    assert "2 of 36 labels; all are in results/tables/label_noise.csv" in text(section)
    assert len(section.findall(".//figure")) == len(shown) + 2


def test_the_map_is_of_the_best_transfer_run(study, tmp_path):
    run = "efficientnetv2m_tuned"
    section = study.page.by_id("cell-map")
    table = pd.read_csv(study.inputs["map_efficientnetv2m"])
    _, answers = read_predictions([study.results / run / "predictions" / "val.npz"])
    labels, probabilities, _ = answers[VAL]
    right = probabilities.argmax(axis=1) == labels
    said = f"Validation copies: {len(labels)} of {len(labels)}."
    assert said in text(section) and f"whether {run} is right" in text(section)
    spec = study.page.charts[int(section.find(".//*[@data-chart]").get("data-chart"))]
    (points,) = spec["datasets"].values()
    assert sorted((of["x"], of["y"], of["class"], of["answer"]) for of in points) == sorted(
        (of.x, of.y, CLASSES[labels[of.row]], "right" if right[of.row] else "wrong")
        for of in table.itertuples()
    )
    other = tmp_path / "map.csv"
    write_table(other, table.assign(label=2 - table["label"]))
    section = study.write(map_efficientnetv2m=other).by_id("cell-map")
    assert "not shown" in text(section) and section.find(".//figure") is None
    empty = tmp_path / "empty.csv"
    write_table(empty, table[:0])
    assert study.write(map_efficientnetv2m=empty).by_id("cell-map") is None


def test_recalls_stand_side_by_side(study):
    section = study.page.by_id("side-by-side")
    for summary, (subset, title) in zip(
        section.findall("details"),
        [(TEST, "test"), (TEST_AUGMENTED, "augmented test")],
        strict=True,
    ):
        assert text(summary.find("summary")).endswith(f"run: {title} images")
        shown = rows_of(summary.find(".//table"))
        assert list(shown) == TRAINED
        for run, row in shown.items():
            of = study.metrics(run)["subsets"][subset]["per_class"]["ig"]
            score = {"value": of["recall"], "low": of["recall_low"], "high": of["recall_high"]}
            assert text(row["ig, %"]) == shown_score(score)


def test_a_difference_of_confusion_matrices_is_that_of_the_counts(study):
    best = "efficientnetv2m_tuned"
    shown = study.page.by_id("agreement").findall("details")[1:]
    assert len(shown) == 4
    other = text(shown[0].find("summary")).removeprefix(f"{best} minus ")
    ours, theirs = (
        pd.read_csv(study.results / run / "confusion_matrix.csv").query("subset == 'test'")
        for run in (best, other)
    )
    more = ours["count"].to_numpy() - theirs["count"].to_numpy()
    cells = [text(td).partition("\N{THIN SPACE}")[0] for td in shown[0].findall(".//td")]
    counts = [f"{n:+d}".replace("-", MINUS) if n else "" for n in more]
    assert all(cell.startswith(count) for cell, count in zip(cells, counts, strict=True))
    assert [bool(cell) for cell in cells] == [bool(count) for count in counts]


def test_where_the_network_looked_stands_beside_the_picture(study):
    section = study.page.by_id("explanation")
    table = pd.read_csv(study.inputs["explanation"])
    images = open_images(study.inputs["images_test_augmented"])
    spotlights = np.load(study.inputs["explained"])
    assert text(section.find("h2")) == f"Where {table['run'][0]} looked"
    figures = section.findall(".//figure")
    assert len(figures) == len(table) == 2
    for place, (figure, row) in enumerate(zip(figures, table.itertuples(), strict=True)):
        assert [img.get("src") for img in figure.iter("img")] == [
            picture(images[row.row]),
            picture(spotlights[place]),
        ]
        assert figure.get("class") == ("right" if row.right else "wrong")
        assert text(figure) == f"{row.predicted}, {100 * row.confidence:.1f} % sure"


# The data and what it rests on


def test_findings_about_the_data_are_shown_as_pictures_with_their_labels(study):
    section = study.page.by_id("data")
    counts = read_json(study.inputs["audit"])["counts"]
    assert f"{counts['kept']:,} are kept" in text(section)
    assert "1 picture was found with several labels (label_conflicts: keep_first)" in text(
        section
    )
    originals = open_images(study.inputs["images"])
    folds = section.findall("details")
    assert [text(fold.find("summary")) for fold in folds] == [
        "Pictures with several labels 1",
        "Near duplicates with several labels, all kept 1",
        "Groups of duplicates 1",
        "Groups of near duplicates, kept within one split 1",
        "What was done to the files of each class",
        "Skipped files 1",
    ]
    for fold in folds[:4]:
        figures = fold.findall(".//figure")
        assert [f.find("img").get("src") for f in figures] == [
            picture(originals[i]) for i in (0, 1)
        ]
        assert [text(f) for f in figures] == [
            f"0: {CLASSES[0]}",
            f"1: {CLASSES[-1]}, difference 0.031",
        ]
        assert "and 12 more" in text(fold)
    assert f"kept image 0 as {CLASSES[0]}" in text(folds[0])
    files = rows_of(folds[4].find(".//table"))
    assert (
        text(files["ig"]["padded"]) == "3" and text(files["ig"]["skipped: truncated"]) == DASH
    )
    assert text(files["outside the classes"]["skipped: truncated"]) == "1"
    sheet = section.findall("figure")[-1].find("img").get("src")
    assert sheet.startswith("data:image/webp") and len(sheet) > 1000


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("pixels", "and their pixels differ by at most 0.06 (duplicate_difference)"),
        ("hash", "whether or not their pixels agree (duplicates: hash)"),
    ],
)
def test_the_rule_for_duplicates_is_said(small, tmp_path, rule, said):
    made = small({"vgg16_cfg1": None})
    audit = read_json(made.inputs["audit"])
    audit["settings"]["duplicates"] = rule
    write_json(tmp_path / "audit.json", audit)
    assert said in text(made.write(audit=tmp_path / "audit.json").by_id("data"))


def test_the_holdout_is_named_and_what_was_left_out_of_it(small, tmp_path):
    made = small({"vgg16_cfg1": 0.8})
    assert "holdout" not in text(made.write().by_id("claims"))
    metrics = made.metrics("vgg16_cfg1")
    metrics["subsets"]["holdout"] = metrics["subsets"]["test"]
    lacking = metrics["subsets"]["test"] | {"drop": {"value": 0.12, "low": 0.1, "high": 0.15}}
    lacking["per_class"] = {
        name: of | {"support": 0} if name == metrics["class_names"][0] else of
        for name, of in lacking["per_class"].items()
    }
    metrics["subsets"]["raabin"] = lacking
    write_json(made.results / "vgg16_cfg1" / "metrics.json", metrics)
    audit = read_json(made.inputs["audit"])
    row = {"source": "bloodmnist.npz/test_images[7]", "class_name": "ig"}
    row |= {"reason": "duplicate of study image 5", "difference": 0.01}
    audit["test_sets"]["holdout"] = {
        "kept": 3400,
        "classes": {"basophil": 1200, "ig": 2200, "platelet": 0, "monocyte": 0},
        "reasons": {"duplicate of study image": 20, "unreadable": 1},
        "left_out": {"count": 21, "examples": [row, row | {"difference": None}]},
    }
    write_json(tmp_path / "audit.json", audit)
    page = made.write(audit=tmp_path / "audit.json", confusion=[], predictions=[])
    assert "BloodMNIST's own test split" in text(page.by_id("grid"))
    assert "same laboratory" in text(page.by_id("claims"))
    assert "holdout accuracy, %" in page.grid()["vgg16_cfg1"]
    assert "raabin accuracy, %" in page.grid()["vgg16_cfg1"]
    others = text(page.by_id("test-sets"))
    assert "They are BloodMNIST's own test split, from the same laboratory." in others
    assert f"It has no images of {metrics['class_names'][0]}: balanced accuracy" in others
    assert "test minus raabin, points" in others and "+12.0 (+10.0 to +15.0)" in others
    data = text(page.by_id("data"))
    assert (
        "The test set holdout has 3,400 images: basophil 1,200, ig 2,200. It has none of"
        in data
    )
    assert "platelet, monocyte, which its means over classes leave out." in data
    assert "Left out: 20 (duplicate of study image), 1 (unreadable)." in data
    assert "duplicate of study image 5" in data


def test_requested_and_used_resources_are_shown(study, small, tmp_path):
    assert "There are no benchmarks of jobs." in text(study.page.by_id("resources"))
    write_text(
        tmp_path / "benchmarks" / "train" / "vgg16_cfg1.tsv",
        "s\tmax_rss\tcpu_time\tthreads\tresources\n"
        "1700\t500\t100\t1\t{'mem_mb': 6000, 'runtime': 120}\n",
    )
    used = {"seconds": 1800, "cpu_seconds": 600, "peak_memory_mib": 1000}
    write_json(tmp_path / "results" / "vgg16_cfg1" / "cost.json", used)
    write_usage(tmp_path / "benchmarks", tmp_path / "resources.csv")
    section = study.write(resources=tmp_path / "resources.csv").by_id("resources")
    assert "1 job took 0.5 hours in sum, 0.2 CPU-hours" in text(section)
    rules, jobs = (rows_of(table) for table in section.iter("table"))
    assert text(rules["train"]["memory"]) == "1,049 MB of 6,000 MB (17 %)"
    assert text(rules["train"]["time"]) == "30 min 00 s of 2 h 00 min (25 %)"
    assert [text(cell) for cell in jobs["train vgg16_cfg1"].values()][1:3] == [
        "1,049 MB",
        "6,000 MB",
    ]


def test_a_failed_report_leaves_nothing(study, tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(
            tmp_path / "report.html",
            study.inputs | {"audit": tmp_path / "nowhere.json"},
            select_by="val",
        )
    assert not list(tmp_path.iterdir())
