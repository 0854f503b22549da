"""A real browser, driven through the DevTools protocol: keys, media, widths, what it said."""

import itertools
import json
import select
import subprocess
import time

import pytest

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    # Chromium speaks to its maker's servers on its own account: let it find nobody.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
]
PATIENCE = 180  # seconds that any one answer may take
# The protocol's numbers for keys: windowsVirtualKeyCode, and the text they type.
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Space": (32, " ")}

# Brings every chart and every matrix that no fold hides into view, and waits until the chart
# is drawn and the cells of the matrix are buttons.
DRAW = """
(async () => {
  const { scrollX, scrollY } = window;
  for (const place of document.querySelectorAll(".chart:not([data-drawn])")) {
    if (!place.checkVisibility()) continue;
    const drawn = new Promise((resolve) => {
      new MutationObserver(resolve).observe(place, { attributeFilter: ["data-drawn"] });
    });
    place.scrollIntoView();
    if (place.dataset.drawn === undefined) await drawn;
  }
  for (const cell of document.querySelectorAll("table:not(:has(button)) td[data-cell]")) {
    if (!cell.checkVisibility()) continue;
    cell.scrollIntoView();
    while (!cell.querySelector("button")) await new Promise(requestAnimationFrame);
  }
  scrollTo(scrollX, scrollY);
})()
"""


class Chromium:
    """One browser; `call` sends it a command and returns the answer."""

    def __init__(self, program, profile):
        # Chromium reads commands from descriptor 3 and answers on 4.
        self.process = subprocess.Popen(
            [
                *("sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 >&2', program, *OPTIONS),
                *(f"--user-data-dir={profile}", "about:blank"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self.numbers, self.left, self.events = itertools.count(1), b"", []

    def call(self, method, session=None, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def wait_for(self, method, session):
        while not any(self._is(event, method, session) for event in self.events):
            self.events.append(self._read())

    def of(self, session, *methods):
        """Return the parameters of the events of a page."""
        return [
            event["params"]
            for event in self.events
            if any(self._is(event, method, session) for method in methods)
        ]

    def close(self):
        """End the browser, which it does when nobody commands it any more."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    @staticmethod
    def _is(event, method, session):
        return event.get("method") == method and event.get("sessionId") == session

    def _read(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.left:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            assert ready and time.monotonic() < deadline, "Chromium does not answer"
            part = self.process.stdout.read(1 << 20)
            assert part, "Chromium ended"
            self.left += part
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)


class Tab:
    """A page that is open in the browser, with what it said and asked for."""

    def __init__(self, browser, width, height, features):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.media(**features)
        self.resize(width, height)

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def open(self, address, fragment=""):
        self.address = address
        self.call("Page.navigate", url=address + fragment)
        self.browser.wait_for("Page.loadEventFired", self.session)
        self.settle()

    def settle(self):
        """Wait until every chart and matrix that no fold hides is ready."""
        self.run(DRAW)

    def run(self, script):
        """Return the value of a JavaScript expression, of a promise what it resolves to."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open_folds(self, which="details"):
        """Open folds, and wait until their charts and matrices are ready."""
        # The page hears of it in a task of its own, and only then makes buttons and charts.
        folds = f"document.querySelectorAll({json.dumps(which)})"
        self.run(f"for (const fold of {folds}) fold.open = true;")
        self.settle()

    def press(self, key):
        code, typed = KEYS[key]
        stroke = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        stroke |= {"key": " "} if key == "Space" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=typed, **stroke)
        self.call("Input.dispatchKeyEvent", type="keyUp", **stroke)

    def click(self, element):
        """Click with the mouse on the middle of the element of a JavaScript expression."""
        x, y = self.run(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def media(self, media="", colours="light"):
        scheme = {"name": "prefers-color-scheme", "value": colours}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def resize(self, width, height=900):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def said(self):
        """Return everything that went to the console, errors of scripts and policy included."""
        events = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        self.run("0")  # what was said before this answer has been read with it
        return self.browser.of(self.session, *events)

    def asked(self):
        """Return the addresses that were asked for; what stands in the page asks nobody."""
        requests = self.browser.of(self.session, "Network.requestWillBeSent")
        addresses = [request["request"]["url"] for request in requests]
        return [a for a in addresses if a != self.address and not a.startswith("data:")]

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)


@pytest.fixture(scope="module")
def chromium(require_program, tmp_path_factory):
    program = require_program("chromium", "chromium")
    browser = Chromium(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def browse(chromium):
    """A function that opens a file in a tab: path, fragment, width, height, media, colours."""
    tabs = []

    def browse(page, fragment="", width=1440, height=900, **features):
        tabs.append(Tab(chromium, width, height, features))
        tabs[-1].open(page.as_uri(), fragment)
        return tabs[-1]

    yield browse
    for tab in tabs:
        tab.close()
