"""Opens a report in headless Chromium and takes its pictures: phone and desktop, light and dark.

    python scripts/report_pictures.py report.html FOLDER

Leaves with 1 if the browser's console says anything, or if the page is wider than the screen.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_START = """import os, sys
read, write = (os.dup(os.dup(int(word))) for word in sys.argv[1:3])  # so neither is overwritten at 3 and 4
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
Answer = dict[str, Any]
SIZES = {"phone": (390, 844, 2), "desktop": (1280, 900, 1)}  # CSS pixels, and device pixels in one
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


def find_browser() -> str | None:
    """Where Chromium is; None if it is not installed."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


class Browser:
    """A page of Chromium, told what to do over a pair of pipes: JSON messages that end in a zero byte."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._number = write, read, b"", 0
        self._page: str | None = None
        self.said: list[str] = []  # on the console, errors of loading among it
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._page = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **given: Any) -> Answer:
        """The answer of a command of the DevTools protocol. RuntimeError if it fails or the browser ends."""
        self._number += 1
        message: Answer = {"id": self._number, "method": method, "params": given}
        if self._page is not None:
            message["sessionId"] = self._page
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer)

    def open(self, page: Path, width: int, height: int, ratio: int, dark: bool) -> None:
        """Load a file and wait until it is drawn."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        screen = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 700}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._note(self._next())

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, whole: bool = True) -> bytes:
        """PNG of the page, or of the part that the screen shows."""
        return b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _next(self) -> Answer:
        while b"\0" not in self._rest:
            found = os.read(self._read, 1 << 20)
            if not found:
                raise RuntimeError("the browser ended")
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: Answer) -> None:
        given = event.get("params", {})
        if event.get("method") == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(part.get("value")) for part in given["args"]))
        elif event.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(given["exceptionDetails"]["text"]))
        elif event.get("method") == "Log.entryAdded":
            self.said.append(str(given["entry"]["text"]))
        elif event.get("method") == "Page.loadEventFired":
            self._loaded = True


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Chromium with an empty profile, ended with the block."""
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [program, *_QUIET, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        theirs = (to_browser[0], from_browser[1])
        started = [sys.executable, "-c", _START, *map(str, theirs), *words]
        process = subprocess.Popen(started, pass_fds=theirs, **quiet)
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser[1], from_browser[0])
        finally:
            os.close(to_browser[1])
            os.close(from_browser[0])
            process.terminate()
            process.wait(timeout=20)


def main(page: str, folder: str) -> int:
    program = find_browser()
    if program is None:
        sys.exit(f"no Chromium here ({', '.join(_NAMES)}); install it first")
    wrong = []
    with browser(program) as opened:
        for name, (width, height, ratio) in SIZES.items():
            for dark in (False, True):
                opened.open(Path(page), width, height, ratio, dark)
                wide = opened.ask("document.documentElement.scrollWidth")
                if wide > width:
                    wrong.append(f"{name}: {wide} pixels wide on a screen of {width}")
                place = Path(folder) / f"{name}-{'dark' if dark else 'light'}.png"
                place.write_bytes(opened.picture())
        wrong += [f"the console says: {said}" for said in opened.said]
    print("\n".join(wrong) or f"nothing on the console, nothing wider than the screen; four pictures in {folder}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
