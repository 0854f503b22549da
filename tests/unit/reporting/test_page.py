import base64
import hashlib
import json
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import yaml
from made_study import make_study

from hemagrid.io import open_images, read_json, write_json, write_table, write_text
from hemagrid.reporting import page as reporting
from hemagrid.reporting.page import write_report
from hemagrid.reporting.pictures import mistakes, picture
from hemagrid.reporting.resources import write_usage
from hemagrid.training.predictions import read_predictions

# Would end the script of the page's data, were it not spelled otherwise there.
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
GRID_OF_14 = ["baseline_cnn", "regularized_cnn"] + [
    f"{backbone}_{head}"
    for backbone in ("mobilenetv3", "efficientnetv2m", "convnext", "vgg16")
    for head in ("cfg1", "cfg2", "cfg3")
]
NAMES = {"val": "validation", "test": "test", "test_augmented": "augmented test"}
DIVERGED = "finetune all", 3  # phase and epoch
DASH = "\N{EN DASH}"
VOID = ("br", "img", "link", "meta")


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
        # A browser reads no NaN.
        self.live = json.loads(self.by_id("live").text, parse_constant=pytest.fail)

    def all(self, path):
        return self.root.findall(f".//{path}")

    def by_id(self, name):
        return self.root.find(f".//*[@id='{name}']")

    def grid(self):
        """Return the grid's rows: {name as shown: {heading: cell}}, in their order."""
        return rows_of(self.by_id("grid").find(".//table"))


def text(element):
    return " ".join("".join(element.itertext()).split())


def rows_of(table):
    headings = [text(th) for th in table.find("thead/tr")]
    rows = table.findall("tbody/tr")
    return {text(row[0]): dict(zip(headings, row, strict=True)) for row in rows}


def shown_score(score):
    """Spell an accuracy of metrics.json as the report does."""
    return "{:.1f} ({:.1f}-{:.1f})".format(*(100 * score[k] for k in ("value", "low", "high")))


def make(folder, runs, classes=CLASSES, *, select_by="test_augmented", **settings):
    """Make a study without its report: results, inputs, and a function that writes it."""
    inputs = make_study(folder, runs, classes, select_by=select_by, **settings)

    def write(select_by=select_by, missing=(), **changed):
        out = folder / "report.html"
        write_report(out, inputs | changed, select_by=select_by, missing=missing)
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
def partial(tmp_path_factory):
    """Three of fourteen runs; no test image of one class; a phase that diverged."""
    done = {"baseline_cnn": 0.4, "mobilenetv3_cfg1": 0.7, "vgg16_cfg1": 0.9}
    made = make(
        tmp_path_factory.mktemp("partial"),
        {run: done.get(run) for run in GRID_OF_14},
        ["basophil", "ig", "platelet"],
        absent=["platelet"],
        select_by="val",
    )
    history = pd.read_csv(made.results / "vgg16_cfg1" / "history.csv")
    history.loc[history.index[-1], ["loss", "accuracy", "val_loss", "val_accuracy"]] = np.nan
    write_table(made.results / "vgg16_cfg1" / "history.csv", history)
    weights = {"application": "MobileNetV3Large", "weights": "random"}
    backbones = yaml.safe_load(made.inputs["config"].read_text())["backbones"]
    made.page = made.write(config=made.config(backbones=backbones | {"mobilenetv3": weights}))
    return made


@pytest.fixture
def small(tmp_path):
    """A function that makes a study of two classes."""
    return lambda runs, **settings: make(tmp_path, runs, ["basophil", "ig"], **settings)


@pytest.fixture
def without_charts(monkeypatch):
    """Leave the charts out, which take most of a report's time."""

    class NoCharts:
        def __getattr__(self, name):
            return lambda *arguments: None

    monkeypatch.setattr(reporting, "charts", NoCharts())


# The page


@pytest.mark.parametrize("which", ["study", "partial"])
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
    assert sorted(int(c.get("data-chart")) for c in charts) == [
        *range(len(page.live["charts"]))
    ]
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
    assert "://" not in page.by_id("live").text

    (policy,) = page.all("meta[@http-equiv='Content-Security-Policy']")
    allowed = dict(part.split(maxsplit=1) for part in policy.get("content").split("; "))
    scripts = [s.text for s in page.all("script") if s.get("type") != "application/json"]
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    assert len(scripts) == 2
    assert allowed == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests),
    }


def test_markup_in_names_is_text_everywhere(study):
    page = study.page
    assert len(page.all("script")) == 3
    assert not page.all("main//b[.='co']") and not page.all("b[.='0.1']")
    # The script that holds the data would end at the first "</script" inside.
    assert "<" not in page.by_id("live").text
    for matrix in page.all("table[@class='matrix']"):
        assert [text(th) for th in matrix.find("thead/tr")][1:] == CLASSES
        assert list(rows_of(matrix)) == CLASSES
    balance = page.by_id("data").find(".//table")
    assert list(rows_of(balance)) == CLASSES
    assert f"{MARKUP}/cut.png" in [text(th) for th in page.by_id("data").iter("th")]
    versions = page.by_id("provenance").findall(".//table")[-1]
    assert "<b>0.1</b>" in [text(td) for td in versions.iter("td")]
    drawn = json.dumps(page.live["charts"])
    assert json.dumps(MARKUP) in drawn


# The numbers


@pytest.mark.parametrize("which", ["study", "partial"])
def test_accuracies_with_intervals_are_those_of_the_metrics(which, request):
    made = request.getfixturevalue(which)
    grid = made.page.grid()
    runs = [path.parent.name for path in made.inputs["metrics"] if path.exists()]
    assert len(runs) == {"study": 7, "partial": 3}[which]
    for run in runs:
        subsets = made.metrics(run)["subsets"]
        scores = {NAMES[subset]: s["accuracy"] for subset, s in subsets.items()}
        for name, score in scores.items():
            cell = grid[run][f"{name} accuracy, %"]
            assert text(cell) == shown_score(score)
            assert float(cell.get("data-value")) == pytest.approx(100 * score["value"])
        summary = made.page.by_id(f"run-{run}").find("summary")
        said = ", ".join(f"{name} {shown_score(score)}" for name, score in scores.items())
        assert text(summary) == f"{run} {said}"


def test_other_numbers_of_the_grid_are_those_of_the_metrics(study):
    for run in EVALUATED:
        metrics, row = study.metrics(run), study.page.grid()[run]
        test, augmented = (metrics["subsets"][s] for s in ("test", "test_augmented"))
        gap = 100 * (test["accuracy"]["value"] - augmented["accuracy"]["value"])
        expected = {
            "test minus augmented, points": (f"{gap:z.1f}", gap),
            "test calibration error, %": (
                f"{100 * test['calibration_error']:.1f}",
                100 * test["calibration_error"],
            ),
        }
        for key, name in (("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1")):
            value = 100 * test[key]["value"]
            expected[f"test {name}, %"] = f"{value:.1f}", value
        cost = metrics["cost"] or {}
        for key, name in (
            ("parameters", "parameters"),
            ("peak_memory_mib", "peak memory, MiB"),
        ):
            expected[name] = (f"{cost[key]:,.0f}", cost[key]) if cost else (DASH, None)
        for name, (shown, value) in expected.items():
            assert text(row[name]) == shown, (run, name)
            found = row[name].get("data-value")
            assert (found and float(found)) == (
                value if value is None else pytest.approx(value)
            )
        time = row["training time"].get("data-value")
        phases = cost.get("phases", {}).values()
        assert (time and float(time)) == (sum(p["seconds"] for p in phases) or None)
    missing = study.page.grid()["vgg16_cfg2 (missing)"]
    assert {text(cell) for cell in list(missing.values())[1:]} == {DASH}


def test_every_metric_of_every_run_is_on_the_page(study):
    rows = rows_of(study.page.by_id("grid").findall(".//table")[1])
    assert list(rows) == list(RUNS)
    for run in EVALUATED:
        for subset, scores in study.metrics(run)["subsets"].items():
            for key, name in (
                ("accuracy", "accuracy"),
                ("balanced_accuracy", "balanced accuracy"),
                ("macro_f1", "macro F1"),
            ):
                assert text(rows[run][f"{NAMES[subset]} {name}, %"]) == shown_score(scores[key])
            error = f"{100 * scores['calibration_error']:.1f}"
            assert text(rows[run][f"{NAMES[subset]} calibration error, %"]) == error


@pytest.mark.parametrize("which", ["study", "partial"])
def test_scores_per_class_are_those_of_the_metrics(which, request):
    made = request.getfixturevalue(which)
    for fold in made.page.by_id("runs").findall("details"):
        metrics = made.metrics(fold.get("id").removeprefix("run-"))
        (table,) = (t for t in fold.iter("table") if t.get("class") != "matrix")
        assert [text(th) for th in table.find("thead/tr")][1:] == [
            NAMES[subset] for subset in metrics["subsets"]
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


@pytest.mark.parametrize("which", ["study", "partial"])
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
        if which == "partial":
            assert counts[2].sum() == 0  # no image of platelets: an empty row


def test_the_best_of_our_runs_in_a_column_is_marked(study):
    grid = study.page.grid()
    ours = {run: grid[run] for run in TRAINED}
    low = ("test calibration", "parameters", "training", "peak")
    columns = list(grid["baseline_cnn"])[1:]
    assert len(columns) > 9
    for name in columns:
        # None of ours was scored; the smallest gap may be that of a run that knows nothing.
        if name in ("Codabench, %", "test minus augmented, points"):
            assert not any(row[name].get("class") for row in grid.values())
            continue
        values = {run: float(row[name].get("data-value")) for run, row in ours.items()}
        best = min(values.values()) if name.startswith(low) else max(values.values())
        marked = {run for run, row in grid.items() if row[name].get("class") == "top"}
        assert marked == {run for run, value in values.items() if value == best}, name


@pytest.mark.usefixtures("without_charts")
def test_published_rows_stand_behind_ours(study, partial, small):
    assert list(study.page.grid()) == [
        "baseline_cnn",
        "published: baseline_cnn",
        "vgg16_cfg1",
        "published: vgg16_cfg1",
        "vgg16_cfg2 (missing)",
        "efficientnetv2m_cfg1",
        "efficientnetv2m_cfg2",
        "efficientnetv2m_tuned",
        "published: efficientnetv2m_tuned",
        "convnext_tuned_adamw",
        "published: convnext_tuned_adamw",
        "majority_class",
        # Without a run of ours.
        "published: regularized_cnn",
        "published: mobilenetv3_cfg3",
        "published: efficientnetv2m_cfg3",
        "published: convnext_cfg1",
        "published: convnext_tuned",
    ]
    theirs = study.page.grid()["published: vgg16_cfg1"]
    assert text(theirs["test accuracy, %"]) == "96.4"
    assert text(theirs["augmented test accuracy, %"]) == "71.0"
    assert text(theirs["test minus augmented, points"]) == "25.4"
    assert text(theirs["Codabench, %"]) == "80.0 (published)"
    assert text(theirs["parameters"]) == DASH
    assert list(partial.page.grid())[2:6] == [
        "regularized_cnn (missing)",
        "published: regularized_cnn",
        "mobilenetv3_cfg1",
        "mobilenetv3_cfg2 (missing)",
    ]
    alone = small({"baseline_cnn": 0.5}, published=False).write()
    assert list(alone.grid()) == ["baseline_cnn"]
    main = "".join(text(section) for section in alone.all("section")[:-1])
    assert "ublished" not in main.replace("As published", "").replace("as published", "")


# The answer


def test_the_answer_names_the_winner_its_scores_and_the_published_number(study):
    accuracies = {
        run: study.metrics(run)["subsets"]["test_augmented"]["accuracy"]["value"]
        for run in TRAINED
    }
    best = max(accuracies, key=accuracies.get)
    answer = study.page.by_id("answer")
    assert text(answer.find("h2")) == best
    assert best in text(study.page.all("title")[0])
    assert "by accuracy on the augmented test images" in text(answer)
    scores = study.metrics(best)["subsets"]
    shown = answer.findall(".//div[@class='score']")
    for element, subset in zip(shown, ("test", "test_augmented"), strict=True):
        score = scores[subset]["accuracy"]
        low, high = (f"{100 * score[k]:.1f}" for k in ("low", "high"))
        assert text(element.find("b")) == f"{100 * score['value']:.1f} %"
        images = f"{scores[subset]['n']} images"
        assert f"{NAMES[subset]} accuracy interval {low}-{high}, {images}" in text(element)
    assert study.page.by_id(f"run-{best}").get("open") is not None
    assert len(study.page.by_id("runs").findall("details[@open]")) == 1


def test_runs_that_chance_may_explain_are_named(study):
    winner = pd.read_csv(study.inputs["winner"])
    said = text(study.page.by_id("answer"))
    others = winner["run"].nunique()
    assert others == len(TRAINED) - 1
    chance = winner[winner["verdict"] == "no difference beyond chance"]
    assert 0 < len(chance) < len(winner)
    for subset, rows in chance.groupby("subset"):
        assert (
            f"On the {NAMES[subset]} images {len(rows)} of {others} other runs cannot be told "
            f"from it: {', '.join(rows['run'])}."
        ) in said
    (table,) = study.page.by_id("answer").iter("table")
    rows = [[text(cell) for cell in row] for row in table.findall("tbody/tr")]
    assert [(row[0], row[-1]) for row in rows] == list(
        zip(winner["run"], winner["verdict"], strict=True)
    )


@pytest.mark.usefixtures("without_charts")
def test_a_winner_stands_beside_the_published_number_of_its_model(small):
    # Found best under another head than the published one.
    page = small({"vgg16_cfg2": 0.9, "baseline_cnn": 0.1}).write()
    scores = page.by_id("answer").findall(".//div[@class='score']")
    assert [text(score).split("published: ")[1] for score in scores] == [
        "96.4 (cfg1)",
        "71.0 (cfg1)",
    ]


@pytest.mark.usefixtures("without_charts")
def test_a_tuned_winner_stands_beside_its_own_published_number(small):
    made = small({"convnext_tuned": 0.95, "convnext_tuned_adamw": 0.5})
    answer = made.write().by_id("answer")
    assert text(answer.find("h2")) == "convnext_tuned"
    scores = [text(score) for score in answer.findall(".//div[@class='score']")]
    # The study gives no accuracy on clean test images for it.
    assert "published" not in scores[0] and scores[1].endswith("published: 76.8")


@pytest.mark.usefixtures("without_charts")
def test_a_clear_winner_is_called_one(small):
    page = small({"baseline_cnn": 0.0, "vgg16_cfg1": 1.0}, per_class=40).write()
    assert (
        "Every other run differs from it beyond chance, on the test and the augmented test"
        in text(page.by_id("answer"))
    )
    assert "cannot be told" not in page.html


# What weakens a result


def warnings(page):
    return [text(p) for p in page.all("main//p[@class='warning']")]


def test_a_choice_on_test_images_is_called_one(study, partial):
    assert any(
        w.startswith("Chosen on test images.") and "augmented test images" in w
        for w in warnings(study.page)
    )
    claims = text(study.page.by_id("claims"))
    assert "were chosen by accuracy on augmented test images" in claims
    assert not any("test images" in w for w in warnings(partial.page))
    assert "by accuracy on the validation images" in text(partial.page.by_id("answer"))
    assert "were chosen on validation images" in text(partial.page.by_id("claims"))


def test_random_weights_are_warned_of(study, partial):
    assert not any("Random weights" in w for w in warnings(study.page))
    (warning,) = (w for w in warnings(partial.page) if w.startswith("Random weights."))
    assert "mobilenetv3 started from random weights" in warning
    assert "vgg16" not in warning


def test_three_runs_of_fourteen_have_a_report_that_names_the_others(partial):
    missing = [
        run
        for run in GRID_OF_14
        if run not in ("baseline_cnn", "mobilenetv3_cfg1", "vgg16_cfg1")
    ]
    assert f"Incomplete. 11 of 14 missing: {', '.join(missing)}." in warnings(partial.page)
    assert "3 of 14 runs and controls evaluated" in text(partial.page.all("header")[0])
    grid = partial.page.grid()
    assert [run for run in grid if run.endswith(" (missing)")] == [
        f"{run} (missing)" for run in missing
    ]
    folds = partial.page.by_id("runs").findall("details")
    assert [f.get("id") for f in folds] == [
        "run-vgg16_cfg1",
        "run-baseline_cnn",
        "run-mobilenetv3_cfg1",
    ]


@pytest.mark.filterwarnings("error")
def test_a_run_without_a_path_is_named_as_missing(small):
    page = small({"baseline_cnn": 0.5}).write(missing=["vgg16_cfg1"])
    assert "Incomplete. 1 of 2 missing: vgg16_cfg1." in warnings(page)
    assert list(page.grid())[2:4] == ["vgg16_cfg1 (missing)", "published: vgg16_cfg1"]


def test_a_study_without_any_result_still_has_a_page(small):
    page = small(dict.fromkeys(["baseline_cnn", "vgg16_cfg1"])).write()
    assert "No run has been evaluated on the augmented test images yet." in text(
        page.by_id("answer")
    )
    assert "kept" in text(page.by_id("data")) and page.by_id("explanation") is None
    assert not page.by_id("runs").findall("details")
    assert not page.all("tr[@class='best']")


def test_a_study_of_controls_alone_has_no_winner(small):
    page = small({"majority_class": 0.0, "vgg16_cfg1": None}).write()
    assert "No run has been evaluated" in text(page.by_id("answer"))
    assert page.by_id("run-majority_class") is not None
    assert not page.all("td[@class='top']")


def test_epochs_that_diverged_are_gaps_in_the_curves(partial):
    charts = partial.page.by_id("run-vgg16_cfg1").findall(".//div[@data-chart]")
    assert len(charts) == 2
    curves = partial.page.live["charts"][int(charts[0].get("data-chart"))]
    rows = [row for data in curves["datasets"].values() for row in data]
    last = [row["value"] for row in rows if (row.get("phase"), row.get("epoch")) == DIVERGED]
    assert last and set(last) == {None}
    assert any(row.get("value") for row in rows)


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


@pytest.mark.usefixtures("without_charts")
def test_figure_1_is_the_best_efficientnet_of_the_grid(study, small):
    accuracies = {
        run: study.metrics(run)["subsets"]["test_augmented"]["accuracy"]["value"]
        for run in ("efficientnetv2m_cfg1", "efficientnetv2m_cfg2")
    }
    figure = study.page.by_id("published").find(".//table[@class='matrix']")
    assert figure.get("data-run") == max(accuracies, key=accuracies.get)
    assert figure.get("data-subset") == "test_augmented"
    same = study.page.by_id(f"run-{figure.get('data-run')}")
    (of_run,) = same.findall(".//table[@data-subset='test_augmented']")
    assert text(figure) == text(of_run)
    page = small({"vgg16_cfg1": 0.5, "efficientnetv2m_tuned": 0.9}).write()
    assert "No run on EfficientNetV2M" in text(page.by_id("published"))


def test_tuning_has_its_section(study):
    section = study.page.by_id("tuning")
    assert study.page.all("a[@href='#tuning']")
    gain = pd.read_csv(study.inputs["tuning_gain"])
    assert list(gain["subset"]) == ["test", "test_augmented"]
    said = {"better": "helped", "worse": "made it worse"}
    said["no difference beyond chance"] = "made no difference beyond chance"
    for item, row in zip(section.findall("ul/li"), gain.itertuples(), strict=True):
        points = [
            f"{p:+z.1f}" for p in (row.gain_points, row.gain_points_low, row.gain_points_high)
        ]
        p = f"= {row.p_holm:.3f}" if row.p_holm >= 0.001 else "below 0.001"
        assert text(item) == (
            f"Tuning efficientnetv2m {said[row.verdict]} on the {NAMES[row.subset]} images: "
            f"{points[0]} points ({points[1]} to {points[2]}) against {row.compared_with}, "
            f"p {p}."
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
    flattered = [w for w in warnings(study.page) if "flattered" in w]
    assert len(flattered) == 1 and "augmented test images" in flattered[0]


@pytest.mark.usefixtures("without_charts")
def test_how_finalists_were_chosen_is_said(small, tmp_path):
    made = small({"vgg16_cfg1": 0.7, "vgg16_tuned": 0.8}, select_by="val")
    page = made.write()
    assert "vgg16: the best by accuracy on the validation images" in text(page.by_id("tuning"))
    assert not any("test images" in w or "flattered" in w for w in warnings(page))
    chosen = read_json(made.inputs["finalists"])
    path = tmp_path / "finalists.json"
    write_json(path, chosen | {"missing": ["vgg16_cfg3"]})
    page = made.write(finalists=path)
    assert "Not in the choice, because their metrics are missing: vgg16_cfg3." in warnings(page)
    write_json(path, chosen | {"chosen_by": "config", "ranking": []})
    page = made.write(finalists=path)
    assert "vgg16: named in the configuration" in text(page.by_id("tuning"))


def test_without_tuning_there_is_no_such_section(partial):
    assert partial.page.by_id("tuning") is None
    assert "No head was tuned in this study." in text(partial.page.by_id("published"))


@pytest.mark.usefixtures("without_charts")
def test_codabench_scores_are_in_the_tables(small, tmp_path):
    scored = tmp_path / "baseline_cnn" / "codabench.json"
    write_json(scored, {"accuracy": {"value": 0.204}})
    made = small({"baseline_cnn": 0.4, "vgg16_cfg1": 0.8})
    config = made.config(codabench={"scores": {"vgg16_cfg1": 81.2}})
    page = made.write(config=config, codabench=[scored, tmp_path / "none" / "codabench.json"])
    row = page.grid()
    assert text(row["vgg16_cfg1"]["Codabench, %"]) == "81.2 (reported)"
    assert text(row["baseline_cnn"]["Codabench, %"]) == "20.4 (scored here)"
    cells = [text(td) for td in page.root.iter("td")]
    # In the grid as on the page, in full, and among the best heads.
    assert cells.count("81.2 (reported)") == cells.count("20.4 (scored here)") == 3


# Pictures


def test_a_cell_of_a_matrix_opens_its_own_images(study):
    pictures, cells = study.page.live["pictures"], study.page.live["cells"]
    assert set(cells) == set(EVALUATED) and len(pictures) == len(set(pictures))
    images = {s: open_images(study.inputs[f"images_{s}"]) for s in ("test", "test_augmented")}
    for run in TRAINED:
        _, subsets = read_predictions(study.results / run / "predictions.npz")
        for subset in ("test", "test_augmented"):
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
    _, subsets = read_predictions(study.results / winner / "predictions.npz")
    labels, probabilities, _ = subsets["test"]
    right = (labels == 1) & (probabilities.argmax(axis=1) == 1)
    surest = np.sort(100 * probabilities[right].max(axis=1))[::-1][:6]
    chosen = study.page.live["cells"][winner]["test"]["1,1"]
    assert [confidence for _, confidence in chosen] == pytest.approx(surest, abs=0.051)


@pytest.mark.usefixtures("without_charts")
def test_a_full_album_leaves_cells_without_pictures(study, monkeypatch):
    monkeypatch.setattr(reporting, "PICTURES", 5)
    page = study.write()
    assert len(page.live["pictures"]) == 5
    shown = [
        number
        for run in page.live["cells"].values()
        for subset in run.values()
        for cell in subset.values()
        for number, _ in cell
    ]
    assert set(shown) == set(range(5))
    assert len(page.all("td[@data-cell]")) == len(study.page.all("td[@data-cell]"))


def test_the_most_confident_mistakes_are_shown(study):
    images = open_images(study.inputs["images_test"])
    for run in TRAINED:
        _, subsets = read_predictions(study.results / run / "predictions.npz")
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


@pytest.mark.usefixtures("without_charts")
def test_a_run_without_mistakes_says_so(small):
    page = small({"vgg16_cfg1": 1.0}).write()
    assert "No mistake on the test images." in text(page.by_id("run-vgg16_cfg1"))
    assert "No other run to compare it with." in text(page.by_id("answer"))


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
    assert "1 picture was found under several labels (label_conflicts: keep_first)" in text(
        section
    )
    originals = open_images(study.inputs["images"])
    folds = section.findall("details")
    assert [text(fold.find("summary")) for fold in folds] == [
        "Pictures under several labels 1",
        "Groups of duplicates (equal perceptual hash) 1",
        "Groups of near duplicates, kept within one split 1",
        "Files skipped 1",
    ]
    for fold in folds[:3]:
        figures = fold.findall(".//figure")
        assert [f.find("img").get("src") for f in figures] == [
            picture(originals[i]) for i in (0, 1)
        ]
        assert [text(f) for f in figures] == [f"0: {CLASSES[0]}", f"1: {CLASSES[-1]}"]
        assert "and 12 more" in text(fold)
    assert f"kept image 0 as {CLASSES[0]}" in text(folds[0])
    sheet = section.findall("figure")[-1].find("img").get("src")
    assert sheet.startswith("data:image/png") and len(sheet) > 1000


@pytest.mark.usefixtures("without_charts")
def test_requested_and_used_resources_are_shown(study, tmp_path):
    assert "No benchmark of any job was found." in text(study.page.by_id("resources"))
    write_text(
        tmp_path / "benchmarks" / "train" / "vgg16_cfg1.tsv",
        "s\tmax_rss\tcpu_time\tthreads\tresources\n"
        "1800\t1000\t600\t1\t{'mem_mb': 6000, 'runtime': 120}\n",
    )
    write_usage(tmp_path / "benchmarks", tmp_path / "resources.csv")
    section = study.write(resources=tmp_path / "resources.csv").by_id("resources")
    assert "1 jobs, 0.5 hours of jobs one after another, 0.2 CPU-hours" in text(section)
    rules, jobs = (rows_of(table) for table in section.iter("table"))
    assert text(rules["train"]["memory"]) == "1,049 MB of 6,000 MB (17 %)"
    assert text(rules["train"]["time"]) == "30 min 00 s of 2 h 00 min (25 %)"
    assert [text(cell) for cell in jobs["train vgg16_cfg1"].values()][1:3] == [
        "1,049 MB",
        "6,000 MB",
    ]


def test_the_exact_configuration_and_its_inputs_are_on_the_page(study):
    section = study.page.by_id("provenance")
    assert section.find(".//pre").text == study.inputs["config"].read_text(encoding="utf-8")
    assert yaml.safe_load(section.find(".//pre").text)["dataset"]["classes"] == CLASSES
    (checksum,) = pd.read_csv(study.inputs["checksums"])["sha256"]
    assert checksum in text(section)
    facts = read_json(study.inputs["study"])
    assert facts["host"]["cpu"] in text(section) and facts["written"] in text(section)


def test_a_failed_report_leaves_nothing(study, tmp_path):
    with pytest.raises(FileNotFoundError):
        write_report(
            tmp_path / "report.html",
            study.inputs | {"audit": tmp_path / "nowhere.json"},
            select_by="val",
        )
    assert not list(tmp_path.iterdir())
