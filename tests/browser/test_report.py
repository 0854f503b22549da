"""The report as a person meets it, in a real browser and under its own policy."""

import base64
import itertools
import json
import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_study import make_study
from PIL import Image

from hemagrid.reporting import page as reporting
from hemagrid.reporting.page import write_report

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
CLASSES = [
    "<script>alert(1)</script>",
    "\"quotes' & <b>",
    "\N{DROP OF BLOOD} drop",
    "x" * 200,
    "platelet",
]
RUNS = {
    "baseline_cnn": 0.4,
    "vgg16_cfg1": 0.7,
    "vgg16_cfg2": None,
    "efficientnetv2m_cfg1": 0.9,
    "efficientnetv2m_tuned": 0.85,
    "majority_class": 0.0,
}
PHONE, TABLET, LAPTOP = 390, 768, 1440
A4 = 1032  # pixels between the margins of a page, as the style sheet lays it
READABLE = 4.5  # contrast of text, WCAG 2.2, level AA

DECODED = """
Promise.all([...document.images].map(async (image) => {
  image.loading = "eager";
  await image.decode().catch(() => {});
  return { alt: image.alt, pixels: image.naturalWidth, width: image.width };
}))
"""
DRAWN = """
[...document.querySelectorAll(".chart")].map((chart) => {
  const { width, height } = chart.querySelector("svg")?.getBoundingClientRect() ?? {};
  return { width, height, role: chart.role, text: chart.ariaLabel };
})
"""
GRID = "document.querySelector('#grid table.sortable')"
# What stands out of the page to its right, outside of what scrolls by itself.
OVERFLOW = """
(() => {
  const scrolls = (e) => e && (getComputedStyle(e).overflowX !== "visible"
    || scrolls(e.parentElement));
  const out = [...document.body.querySelectorAll("*")].filter((e) =>
    e.getBoundingClientRect().right > WIDTH + 1 && !scrolls(e.parentElement));
  const said = out.slice(0, 5).map((e) => e.outerHTML.slice(0, 200));
  return [document.documentElement.scrollWidth, said];
})()
"""
# The texts in sight whose contrast with what they stand on is too low.
UNREADABLE = """
(() => {
  const parts = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const over = ({ rgb, a }, ground) => rgb.map((value, k) => a * value + (1 - a) * ground[k]);
  const ground = (e) => {
    if (!e) return [255, 255, 255];
    const own = parts(getComputedStyle(e).backgroundColor);
    return own.a === 1 ? own.rgb : over(own, ground(e.parentElement));
  };
  // The ground of a number of a heat map is its square, whose label begins as its own does.
  const square = (e) => {
    const label = /^(corruption: .*?; run|run: .*?; compared_with): [^;]*/;
    const cell = e.ariaLabel?.match(label)?.[0];
    return cell && [...e.closest("svg").querySelectorAll("path[aria-label]")].find((other) =>
      other.ariaLabel.startsWith(cell));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) =>
      v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  let seen = 0;
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.closest("noscript, script")) continue;
    const style = getComputedStyle(e);
    if (style.opacity === "0") continue; // a label of an axis that another one leaves no room
    seen += 1;
    const inks = parts(e.closest("svg") ? style.fill : style.color);
    inks.a *= style.opacity * (e.closest("svg") ? style.fillOpacity : 1);
    const under = square(e) ? parts(getComputedStyle(square(e)).fill).rgb : ground(e);
    const lights = [luminance(over(inks, under)), luminance(under)].sort((a, b) => b - a);
    const contrast = (lights[0] + 0.05) / (lights[1] + 0.05);
    if (contrast < READABLE) found.push([e.outerHTML.slice(0, 150), contrast]);
  }
  return [seen, found];
})()
""".replace("READABLE", str(READABLE))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of many classes of hostile names, one of them without a test image."""
    folder = tmp_path_factory.mktemp("made")
    inputs = make_study(folder, RUNS, CLASSES, per_class=20, absent=["platelet"])
    write_report(folder / "report.html", inputs, select_by="test_augmented")
    return folder / "report.html"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """The made report as if its runs were too many, so that one alone has its details in it."""
    folder = tmp_path_factory.mktemp("crowded")
    inputs = make_study(folder, RUNS, CLASSES, per_class=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "LISTED", 2)
        patch.setattr(reporting, "DETAILED", 1)
        write_report(folder / "results" / "report.html", inputs, select_by="test_augmented")
    return folder / "results" / "report.html"


@pytest.fixture(scope="session")
def axe():
    """The text of axe-core, which npm puts beside these tests."""
    script = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        reason = "axe-core is not installed: npm ci --prefix tests/browser"
        if os.environ.get("HEMAGRID_REQUIRE_ALL_TESTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return script.read_text(encoding="utf-8")


@pytest.fixture(params=["made", "study"])
def report(request):
    """Both a made report and that of a study that was run."""
    if request.param == "made":
        return request.getfixturevalue("made")
    return request.getfixturevalue("study").results / "report.html"


def rgb(colour):
    return [float(value) for value in re.findall(r"[\d.]+", colour)][:3]


# Nothing fails, nothing is asked for, everything shows


def test_every_picture_and_every_chart_shows_and_nothing_is_asked_for(browse, report):
    tab = browse(report)
    tab.open_folds()
    images = tab.run(DECODED)
    assert len(images) > 20
    for image in images:
        assert image["alt"] and image["pixels"] > 0 and image["width"] > 0, image
    charts = tab.run(DRAWN)
    # Of the study and of each trained run; the hidden ones were drawn when their fold opened.
    assert len(charts) == tab.run("drawing.then((charts) => charts.length)") > 8
    for chart in charts:
        # Vega gives its own role to what it draws in.
        assert chart["role"] in ("img", "graphics-document") and chart["text"], chart
        assert min(chart["width"], chart["height"]) > 80, chart
    assert tab.said() == []
    assert tab.asked() == []


def test_what_would_fail_or_ask_is_seen(browse, made, tmp_path):
    planted = (
        '<img alt="broken" src="data:image/png;base64,AAAA">'
        '<img alt="remote" src="http://pictures.example/cell.png">'
        "<script>document.title = 'changed'</script>"
        '<div class="chart" data-drawn role="img"></div>'
    )
    page = tmp_path / "planted.html"
    page.write_text(made.read_text().replace("<main", planted + "<main", 1))
    tab = browse(page)
    tab.open_folds()
    broken = [image["alt"] for image in tab.run(DECODED) if not image["pixels"]]
    assert broken == ["broken", "remote"]
    assert [chart for chart in tab.run(DRAWN) if not chart.get("width")] != []
    # The policy stops the picture and the script, and both are told.
    assert tab.run("document.title") != "changed"
    assert len(tab.said()) >= 2

    page.write_text(POLICY.sub("", page.read_text()))
    free = browse(page)
    assert free.run("document.title") == "changed"
    assert free.asked() == ["http://pictures.example/cell.png"]
    assert len(free.said()) == 1  # that nobody answers


def test_hostile_names_are_text(browse, made):
    tab = browse(made)
    tab.open_folds()
    names = tab.run(
        "[...document.querySelectorAll('.matrix tbody th')].map((e) => e.textContent)"
    )
    assert names[:5] == CLASSES
    assert tab.run("document.querySelectorAll('b b, main script').length") == 0
    texts = tab.run(
        "[...document.querySelectorAll('.chart svg text')].map((e) => e.textContent)"
    )
    drawn = " ".join(texts)
    assert "\N{DROP OF BLOOD} drop" in drawn and "\"quotes' & <b>" in drawn
    # An axis cuts what is too long for it.
    assert "<script>alert(1)" in drawn and "x" * 10 in drawn and "x" * 60 not in drawn


# By mouse and by keyboard


def order(tab, heading):
    """Return the grid's column under a heading: numbers, None where there is none."""
    return tab.run(
        f"(() => {{ const table = {GRID};"
        "const column = [...table.tHead.rows[0].cells]"
        f".findIndex((e) => e.textContent === {json.dumps(heading)});"
        "return [...table.tBodies[0].rows].map((row) =>"
        "Number(row.cells[column].dataset.value ?? NaN)); })()"
    )


@pytest.mark.parametrize("by", ["mouse", "Enter", "Space"])
def test_a_heading_sorts(browse, made, by):
    tab = browse(made)
    column = "test accuracy, %"
    button = (
        f"[...{GRID}.querySelectorAll('thead button')]"
        f".find((e) => e.textContent === {json.dumps(column)})"
    )
    before = order(tab, column)
    numbers = [number for number in before if number is not None]
    assert len(set(numbers)) > 5 and None in before
    assert before != sorted(numbers, reverse=True) + [None] * before.count(None)
    if by != "mouse":
        tab.run(f"{button}.focus()")
    for direction, reverse in (("descending", True), ("ascending", False)):
        tab.click(button) if by == "mouse" else tab.press(by)
        missing = [None] * before.count(None)
        assert order(tab, column) == sorted(numbers, reverse=reverse) + missing
        marked = (
            f"[...{GRID}.querySelectorAll('[aria-sort]')].map((e) => [e.ariaSort, e.innerText])"
        )
        ((sort, heading),) = tab.run(marked)
        assert sort == direction and heading.startswith(column)


def test_names_sort_as_well_and_another_heading_takes_over(browse, made):
    tab = browse(made)
    for place in (1, 0):
        tab.run(f"{GRID}.tHead.rows[0].cells[{place}].querySelector('button').click()")
    names = tab.run(f"[...{GRID}.tBodies[0].rows].map((row) => row.cells[0].textContent)")
    assert len(names) > 10 and names == sorted(names, key=str.lower, reverse=True)
    assert tab.run(f"{GRID}.querySelectorAll('[aria-sort]').length") == 1


def test_a_cell_opens_as_many_of_its_images_as_it_says(browse, report):
    tab = browse(report)
    tab.open_folds()
    cells = tab.run(
        """
        (async () => {
          const cells = [];
          for (const button of document.querySelectorAll(".matrix td button")) {
            button.click();
            const cell = button.closest("td"), table = button.closest("table");
            const place = document.getElementById(table.dataset.shows);
            const images = [...place.querySelectorAll("img")];
            const decoded = await Promise.all(images.map((image) => image.decode()
              .then(() => image.naturalWidth > 0 && image.width > 0 && image.alt !== "")));
            cells.push({
              count: Number(cell.dataset.count),
              said: place.querySelector("p").textContent,
              title: button.title,
              decoded,
              here: button.getAttribute("aria-pressed"),
              live: place.ariaLive,
            });
          }
          return cells;
        })()
        """
    )
    assert len(cells) == tab.run("document.querySelectorAll('td[data-count]').length") > 30
    for cell in cells:
        shown = len(cell["decoded"])
        assert all(cell["decoded"]) and shown == min(cell["count"], 6), cell
        expected = cell["title"]
        if shown < cell["count"]:
            expected += f"; {shown} of them shown"
        assert cell["said"] == expected
        assert cell["title"].startswith(f"{cell['count']:,} of ")
        assert cell["here"] == "true" and cell["live"] == "polite"
    assert tab.said() == []


@pytest.mark.parametrize("by", ["mouse", "Enter", "Space"])
def test_a_cell_opens_by_every_means(browse, made, by):
    tab = browse(made)
    button = "document.querySelector('#runs details[open] .matrix td button')"
    pictures = "document.querySelectorAll('#runs details[open] .cells img').length"
    assert tab.run(pictures) == 0
    if by == "mouse":
        tab.click(button)
    else:
        tab.run(f"{button}.focus()")
        tab.press(by)
    # Of 18 images of the first class that were recognised.
    assert tab.run(pictures) == 6
    said = tab.run("document.querySelector('#runs details[open] .cells p').textContent")
    assert said.endswith("; 6 of them shown") and said.startswith(tab.run(f"{button}.title"))
    assert tab.run(f"{button}.getAttribute('aria-pressed')") == "true"


def test_tab_reaches_what_can_be_operated_and_shows_where_it_is(browse, made):
    tab = browse(made)
    reached = []
    for _ in range(30):
        tab.press("Tab")
        reached.append(
            tab.run(
                "(() => { const e = document.activeElement, box = e.getBoundingClientRect();"
                "return [e.tagName, e.textContent, getComputedStyle(e).outlineStyle,"
                "box.right > 0 && box.bottom > 0 && box.top < innerHeight]; })()"
            )
        )
    assert reached[0][:2] == ["A", "Skip to the answer"]
    assert all(outline != "none" and in_sight for _, _, outline, in_sight in reached), reached
    said = [(tag, text) for tag, text, _, _ in reached]
    assert ("A", "All runs") in said and ("BUTTON", "test accuracy, %") in said
    tab.run("document.querySelector('.skip').focus()")
    tab.press("Enter")
    assert tab.run("location.hash") == "#answer"


def test_a_link_to_a_run_opens_its_fold(browse, made):
    fold = "document.getElementById('run-vgg16_cfg1')"
    drawn = f"{fold}.querySelectorAll('.chart svg').length"
    tab = browse(made)
    assert tab.run(f"[{fold}.open, {drawn}]") == [False, 0]
    tab.click("document.querySelector('#grid a[href=\"#run-vgg16_cfg1\"]')")
    opened = f"{fold}.open ? done() : {fold}.addEventListener('toggle', done)"
    tab.run(f"new Promise((done) => {opened})")
    tab.settle()
    assert tab.run(f"[{fold}.open, {drawn}]") == [True, 3]

    tab = browse(made, "#run-vgg16_cfg1")
    assert tab.run(f"{fold}.open")
    top = tab.run(f"{fold}.getBoundingClientRect().top")
    assert 0 <= top < 900


def test_a_link_to_one_of_too_many_runs_leads_to_its_files(browse, crowded):
    tab = browse(crowded)
    tab.click("document.querySelector('#grid a[href=\"#run-vgg16_cfg1\"]')")
    entry = "document.getElementById('run-vgg16_cfg1')"
    fold = f"{entry}.closest('details')"
    opened = f"{fold}.open ? done() : {fold}.addEventListener('toggle', done)"
    tab.run(f"new Promise((done) => {opened})")
    links = tab.run(f"[...{entry}.querySelectorAll('a')].map((a) => a.href)")
    here = crowded.parent.as_uri()
    assert f"{here}/vgg16_cfg1/metrics.json" in links
    assert (crowded.parent / "vgg16_cfg1" / "metrics.json").exists()


def test_all_folds_of_runs_open_and_close_at_once(browse, made):
    tab = browse(made)
    states = "[...document.querySelectorAll('#runs > details')].map((fold) => fold.open)"
    assert sorted(tab.run(states)) == [False, False, False, False, True]
    for opened in (True, False):
        tab.click("document.getElementById('open-runs')")
        assert set(tab.run(states)) == {opened}


# Light, dark, narrow, wide, printed


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_is_readable(browse, report, colours):
    tab = browse(report, colours=colours)
    ground = rgb(tab.run("getComputedStyle(document.body).backgroundColor"))
    ink = rgb(tab.run("getComputedStyle(document.body).color"))
    assert (np.mean(ground) > np.mean(ink)) == (colours == "light")
    tab.open_folds()
    tab.run("document.querySelector('.matrix td button').click()")
    seen, unreadable = tab.run(UNREADABLE)
    assert seen > 300
    assert unreadable == []
    fill = tab.run("getComputedStyle(document.querySelector('.chart svg text')).fill")
    assert rgb(fill) == ink


def test_an_unreadable_text_would_be_seen(browse, made):
    tab = browse(made)
    tab.run("document.querySelector('h1').style.color = '#999'")
    (found,) = tab.run(UNREADABLE)[1]
    assert found[0].startswith("<h1") and found[1] == pytest.approx(2.85, abs=0.01)


@pytest.mark.parametrize("width", [PHONE, TABLET, LAPTOP])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_fits_and_shows_at_every_width(browse, report, width, colours):
    tab = browse(report, width=width, colours=colours)
    shot = base64.b64decode(tab.call("Page.captureScreenshot")["data"])
    pixels = np.asarray(Image.open(BytesIO(shot)).convert("RGB"))
    assert pixels.shape == (900, width, 3)
    inked = (pixels != pixels[0, 0]).any(axis=-1)
    assert 0.02 < inked.mean() < 0.9
    # Every fifth of the height shows something.
    assert all(part.any() for part in np.array_split(inked, 5))
    tab.open_folds()
    tab.run("for (const e of document.querySelectorAll('.matrix td button')) e.click()")
    assert tab.run(OVERFLOW.replace("WIDTH", str(width))) == [width, []]


VIOLATIONS = """
axe.run({
  resultTypes: ["violations"],
  rules: { "label-content-name-mismatch": { enabled: true } },
}).then(({ violations }) => violations.map((rule) =>
  [rule.id, rule.nodes.length, rule.nodes[0].html.slice(0, 300), rule.nodes[0].failureSummary]))
"""


@pytest.mark.parametrize("which", ["made", "study", "crowded"])
def test_axe_finds_nothing_at_any_width_in_any_colours(browse, which, axe, request):
    found = request.getfixturevalue(which)
    tab = browse(found.results / "report.html" if which == "study" else found)
    tab.open_folds()
    tab.run("document.querySelector('.matrix td button').click()")
    tab.run(axe)
    looks = itertools.product((PHONE, TABLET, LAPTOP), ("light", "dark"))
    if which != "made":  # a long page takes axe a minute
        looks = [(PHONE, "light"), (LAPTOP, "dark")]
    for width, colours in looks:
        tab.resize(width)
        tab.media(colours=colours)
        assert tab.run(VIOLATIONS) == [], (width, colours)
    tab.run("document.querySelector('h3').outerHTML = '<h5>skipped</h5>'")
    tab.run("document.querySelector('img').removeAttribute('alt')")
    assert {rule[0] for rule in tab.run(VIOLATIONS)} == {"heading-order", "image-alt"}


def test_every_column_fits_a_laptop_and_the_accuracies_a_phone(browse, made):
    right = f"[...{GRID}.tHead.rows[0].cells].map((e) => e.getBoundingClientRect().right)"
    assert max(browse(made, width=LAPTOP).run(right)) <= LAPTOP
    phone = browse(made, width=PHONE)
    first, *others = phone.run(right)
    names = phone.run(f"[...{GRID}.tHead.rows[0].cells].map((e) => e.textContent)")[1:]
    accuracies = [end for end, name in zip(others, names, strict=True) if "accuracy, %" in name]
    assert first < 0.4 * PHONE and max(accuracies[:3]) <= PHONE


def test_texts_of_charts_are_large_enough_and_the_full_scale_is_a_click_away(browse, made):
    tab = browse(made)
    tab.open_folds()
    sizes = tab.run(
        "[...document.querySelectorAll('.chart svg text')]"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert len(sizes) > 100 and min(sizes) >= 12
    ticks = (
        "[...document.querySelectorAll('#grid .chart')[0]"
        ".querySelectorAll('.role-axis-label text')].map((e) => parseFloat(e.textContent))"
    )
    assert 0 not in tab.run(ticks)
    tab.click("document.querySelector('#grid .options input')")
    assert {0, 100} <= set(tab.run(ticks))


def test_what_stands_out_would_be_seen(browse, made):
    tab = browse(made, width=PHONE)
    tab.run("document.querySelector('h1').style.width = '500px'")
    width, out = tab.run(OVERFLOW.replace("WIDTH", str(PHONE)))
    assert width > PHONE and len(out) == 1 and out[0].startswith("<h1")


def test_print_is_light_and_fits_the_paper(browse, report):
    tab = browse(report, colours="dark", width=A4)
    dark = tab.run("getComputedStyle(document.body).backgroundColor")
    tab.open_folds("#runs > details, #tuning details")
    tab.media("print", colours="dark")
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert np.mean(rgb(dark)) < 60 and rgb(ground) == [255, 255, 255]
    assert tab.run(UNREADABLE)[1] == []
    # Nothing scrolls on paper: what is too wide is cut off, or makes everything smaller.
    shown, wide = tab.run(
        "(() => { const all = [...document.querySelectorAll('table, img, .chart svg')]"
        ".filter((e) => e.checkVisibility())"
        ".map((e) => [e.getBoundingClientRect().right, e.outerHTML.slice(0, 150)]);"
        f"return [all.length, all.filter(([right]) => right > {A4} + 1)]; }})()"
    )
    assert shown > 30 and wide == []
    printed = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF-")
    # A page holds more than one table, picture or chart.
    assert 3 < len(re.findall(rb"/Type /Page\b", printed)) < shown / 2
    (size,) = set(re.findall(rb"/MediaBox \[([^\]]*)\]", printed))
    assert [float(side) for side in size.split()] == pytest.approx([0, 0, 842, 595], abs=1)


@pytest.mark.parametrize("width", [PHONE, TABLET])
def test_charts_fit_without_being_scrolled(browse, made, width):
    tab = browse(made, width=width)
    tab.open_folds()
    wide = tab.run(
        "[...document.querySelectorAll('[data-drawn]')]"
        ".filter((place) => place.scrollWidth > place.clientWidth)"
        ".map((place) => place.getAttribute('aria-label'))"
    )
    assert wide == []
    tab.run("document.querySelector('[data-drawn] svg').setAttribute('width', 900)")
    scrolled = "document.querySelector('[data-drawn]').scrollWidth"
    assert tab.run(scrolled) > width
