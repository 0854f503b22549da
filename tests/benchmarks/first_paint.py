"""Print when a report first paints on a slow phone, as Lighthouse has it.

    python tests/benchmarks/first_paint.py results/report.html

The page is served on loopback and opened by Debian's chromium with Lighthouse's mobile
settings: a network of 1.6 Mbit/s with a round trip of 150 ms, and a processor four times
slower. Lighthouse comes from npm (`npx`). "applied" slows the browser down. "simulated", which
is Lighthouse's default, loads the page at full speed and computes what a slow phone would
take: it assumes that the whole file is needed before the first paint, while a browser paints
what has arrived.
"""

import argparse
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from hemagrid.reporting.text import aligned  # noqa: E402

LIGHTHOUSE = "lighthouse@12.8.2"
METHODS = {"applied": "devtools", "simulated": "simulate"}
CHROMIUM = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
CHROMIUM += " --disable-background-networking --disable-component-update --disable-sync"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def first_paints(address, method):
    """Return Lighthouse's first and largest contentful paint in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lighthouse.json"
        subprocess.run(
            [
                *("npx", "--yes", LIGHTHOUSE, address, "--quiet", "--output=json"),
                *(f"--output-path={out}", "--only-categories=performance"),
                *(f"--throttling-method={METHODS[method]}", f"--chrome-flags={CHROMIUM}"),
                # A large page on a busy machine takes longer than Lighthouse's 45 s.
                "--max-wait-for-load=180000",
            ],
            check=True,
            env=os.environ | {"CHROME_PATH": shutil.which("chromium") or "chromium"},
        )
        audits = json.loads(out.read_text())["audits"]
    names = ("first-contentful-paint", "largest-contentful-paint")
    return [audits[name]["numericValue"] / 1000 for name in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="+", help="the report, results/report.html")
    rows = []
    for page in parser.parse_args().page:
        handler = functools.partial(Quiet, directory=str(page.resolve().parent))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}/{page.name}"
            for method in METHODS:
                paints = first_paints(address, method)
                size = page.stat().st_size / 1e6
                rows.append([page, f"{size:.1f}", method, *(f"{s:.1f}" for s in paints)])
            server.shutdown()
    print(aligned(["page", "MB", "throttling", "first paint, s", "largest, s"], rows))


if __name__ == "__main__":
    main()
