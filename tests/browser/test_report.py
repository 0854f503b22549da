"""The report in a real browser: nothing fails, nothing is asked for, everything shows."""

import json
import re
import subprocess
from html import unescape

import numpy as np
import pytest
from PIL import Image

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    # Chromium speaks to its maker's servers on its own account: let it find nobody.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
]

# For a copy of the page without its policy, which allows no script and would itself stop a
# request: opens every fold, decodes every picture, notes what failed and what was asked for.
PROBE = """
<script>
const errors = [];
addEventListener("error", e => errors.push(e.message || e.target.outerHTML), true);
addEventListener("load", async () => {
  document.querySelectorAll("details").forEach(fold => { fold.open = true; });
  const images = [...document.images];
  images.forEach(image => { image.loading = "eager"; });
  await Promise.all(images.map(i => i.decode().catch(e => errors.push(i.alt + ": " + e))));
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  const found = document.createElement("output");
  found.id = "found";
  found.textContent = JSON.stringify({
    errors,
    asked: asked.filter(name => !name.startsWith("data:")),
    images: images.map(i => [i.alt, i.naturalWidth, i.naturalHeight, i.clientWidth]),
    overflow: document.documentElement.scrollWidth - innerWidth,
  });
  document.body.append(found);
});
</script>
"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@pytest.fixture(scope="module")
def browse(require_program, tmp_path_factory):
    """A function that opens a page in Chromium and returns what went to stdout, stderr."""
    chromium = require_program("chromium", "chromium")
    profile = tmp_path_factory.mktemp("chromium")

    def browse(page, *options):
        result = subprocess.run(
            [chromium, *OPTIONS, f"--user-data-dir={profile}", *options, page.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    return browse


@pytest.fixture(scope="module")
def report(study):
    return study.results / "report.html"


def probed(browse, folder, html, width=1280):
    """Return what the probe finds in a page, in a window of the given width."""
    page, policies = POLICY.subn("", html)
    assert policies == 1
    copy = folder / "copy.html"
    copy.write_text(page.replace("<head>", "<head>" + PROBE, 1))
    document, _ = browse(copy, "--dump-dom", f"--window-size={width},900")
    found = re.search(r'<output id="found">(.*?)</output>', document, re.S)
    assert found, document[-2000:]
    return json.loads(unescape(found[1]))


def console(log):
    return re.findall(r"CONSOLE.*", log)


def test_the_console_stays_empty(browse, report):
    _, log = browse(report, "--dump-dom")
    assert not console(log)


def test_every_picture_decodes_and_nothing_is_asked_for(browse, report, tmp_path):
    found = probed(browse, tmp_path, report.read_text())
    assert found["errors"] == []
    assert found["asked"] == []
    # Accuracy, class balance, contact sheet; two of each trained run, one of each search.
    assert len(found["images"]) == 3 + 2 * 6 + 2
    for alt, width, height, shown in found["images"]:
        assert alt
        assert min(width, height, shown) > 100, alt


def test_a_broken_picture_and_a_request_would_be_seen(browse, report, tmp_path):
    planted = (
        '<img alt="broken" src="data:image/png;base64,AAAA">'
        '<img alt="remote" src="http://pictures.example/cell.png">'
    )
    page = tmp_path / "planted.html"
    page.write_text(report.read_text().replace("<main", planted + "<main", 1))
    _, log = browse(page, "--dump-dom")
    assert "Content Security Policy" in " ".join(console(log))
    found = probed(browse, tmp_path, page.read_text())
    assert len(found["errors"]) >= 2
    assert found["asked"] == ["http://pictures.example/cell.png"]


@pytest.mark.parametrize("width", [500, 1280, 1920])
def test_the_page_shows_and_fits_at_every_width(browse, report, tmp_path, width):
    picture = tmp_path / "page.png"
    browse(report, f"--screenshot={picture}", f"--window-size={width},2000")
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (2000, width, 3)
    ground = pixels[0, 0]
    inked = (pixels != ground).any(axis=-1)
    assert 0.02 < inked.mean() < 0.9
    # Every fifth of the height shows something.
    assert all(part.any() for part in np.array_split(inked, 5))
    assert probed(browse, tmp_path, report.read_text(), width)["overflow"] <= 0
