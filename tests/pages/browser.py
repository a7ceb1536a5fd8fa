"""Headless Chromium, spoken to by its DevTools protocol over two pipes: no port, no library."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
         "--disable-dev-shm-usage", "--remote-debugging-pipe")  # fmt: skip
LOUD = {"error", "warning", "assert"}  # what a console says when something is wrong


def find_chromium() -> str:
    """Its path. Skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here; apt-get install chromium has one")
    return found


class Tab:
    """A page that is open.

    complaints: what the console said that is wrong, and exceptions of scripts.
    requests: the addresses that were asked for, that of the page among them.
    """

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive, self._number = send, receive, 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.seen: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while (answer := self._read()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        parts = bytearray()
        while (one := self._receive.read(1)) != b"\0":
            assert one, "Chromium has closed its pipe"
            parts += one
        message = json.loads(parts)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, values: dict[str, Any]) -> None:
        self.seen.append(event)
        if event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(values["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and values["type"] in LOUD:
            self.complaints.append(json.dumps(values["args"]))
        elif event == "Log.entryAdded":
            self.complaints.append(values["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Open a page of this disk, on a screen of this width."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        self.seen.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while "Page.loadEventFired" not in self.seen:
            self._read()

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key of the keyboard, by its name and its number in DevTools."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=code)  # fmt: skip

    def screenshot(self, whole: bool = True) -> bytes:
        """A PNG of the page, or of what the screen shows of it."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole,
                          **({"clip": self._clip()} if whole else {}))  # fmt: skip
        return base64.b64decode(taken["data"])

    def _clip(self) -> dict[str, float]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}


@contextmanager
def chromium(place: Path) -> Iterator[Tab]:
    """A browser with a profile of its own below `place`."""
    path = find_chromium()
    ours, theirs = os.pipe(), os.pipe()  # commands to it, answers from it

    def as_it_expects() -> None:
        os.dup2(ours[0], 3)
        os.dup2(theirs[1], 4)

    process = subprocess.Popen(
        [path, *FLAGS, f"--user-data-dir={place}"],
        pass_fds=(3, 4, ours[0], theirs[1]), preexec_fn=as_it_expects,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(ours[0])
    os.close(theirs[1])
    try:
        with os.fdopen(ours[1], "wb") as send, os.fdopen(theirs[0], "rb") as receive:
            tab = Tab(send, receive)
            tab.attach()
            yield tab
    finally:
        process.kill()
        process.wait()
