"""A desktop app in a virtual display, used through WebKit's WebDriver as a person uses it."""

import contextlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
from service_process import free_port, wait_until, web

DRIVER, DISPLAY = "WebKitWebDriver", "Xvfb"
PACKAGES = {DRIVER: "webkit2gtk-driver", DISPLAY: "xvfb"}
"""The programs, and Debian's packages of them."""
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of an element's reference, by the W3C's recommendation."""


class App:
    """A running app; its elements are named by their ids."""

    def __init__(self, desktop: "Desktop", binary: Path) -> None:
        options = {"webkitgtk:browserOptions": {"binary": str(binary)}}
        answer = web.post(f"{desktop.url}/session", json={"capabilities": {"alwaysMatch": options}})
        assert answer.status_code == 200, answer.text
        self._session = f"{desktop.url}/session/{answer.json()['value']['sessionId']}"
        (self.process,) = psutil.Process(desktop.driver.pid).children()

    def script(self, code: str, *arguments: object) -> Any:
        """Run JavaScript in the page; what it returns."""
        body = {"script": code, "args": arguments}
        answer = web.post(f"{self._session}/execute/sync", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def click(self, name: str) -> None:
        """Click an element as a mouse does: it must be seen."""
        find = {"using": "css selector", "value": name}
        found = web.post(f"{self._session}/element", json=find).json()["value"]
        answer = web.post(f"{self._session}/element/{found[ELEMENT]}/click", json={})
        assert answer.status_code == 200, answer.text

    def text(self, name: str) -> str:
        """Return the text of an element as it is shown; empty if it is hidden."""
        return str(
            self.script("return document.querySelector(arguments[0])?.innerText ?? ''", name)
        )

    def wait_for(self, name: str, part: str) -> str:
        """Wait until an element shows this text among others; all of it."""
        shown = wait_until(
            lambda: part in (text := self.text(name)) and (text or True), f"{part!r} in {name}"
        )
        return str(shown)

    def drop(self, path: Path) -> None:
        """Drop a file on the window, as Tauri reports it."""
        self.script(
            "window.__TAURI_INTERNALS__.invoke('plugin:event|emit', {event: 'tauri://drag-drop',"
            " payload: {paths: [arguments[0]], position: {x: 1, y: 1}}})",
            str(path),
        )

    def picture(self) -> bytes:
        """Return a picture of the page in base64, PNG."""
        return bytes(web.get(f"{self._session}/screenshot").json()["value"], "ascii")

    def close(self) -> None:
        """Close the window as its button does; the app ends by itself."""
        web.delete(f"{self._session}/window")


class Desktop:
    """A display and a driver, for apps one after the other."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._stack = contextlib.ExitStack()
        self.url = f"http://127.0.0.1:{free_port()}"
        self._environment = environment

    def __enter__(self) -> Self:
        read, write = os.pipe()
        screen = [
            DISPLAY,
            "-displayfd",
            str(write),
            "-screen",
            "0",
            "1024x768x24",
            "-nolisten",
            "tcp",
        ]
        self._start(screen, {}, pass_fds=[write])
        os.close(write)
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        automation = {"TAURI_AUTOMATION": "true", "TAURI_WEBVIEW_AUTOMATION": "true"}
        self.driver = self._start(
            [DRIVER, f"--port={self.url.rsplit(':', 1)[1]}"],
            {**self._environment, "DISPLAY": f":{number}", "GDK_BACKEND": "x11", **automation},
        )

        def answers() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return web.get(f"{self.url}/status").status_code == 200
            return False

        wait_until(answers, "the driver answers")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(
        self, command: list[str], environment: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, env={**os.environ, **environment}, **options)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process
