"""A real browser in the hands of a test: Chromium without a window, driven by selenium."""

import base64
import functools
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import browser_driver
from browser_driver import as_browser_names
from recordings import wav
from service_process import PATIENCE_S, Server, new_file, wait_until

WIDTH, HEIGHT = 1280, 860
DOWN, SHIFT, CONTROL, ENTER, ESCAPE = "\ue015", "\ue008", "\ue009", "\ue007", "\ue00c"
STRANGER = "evil.example"
"""A name that leads to this machine by the browser's own resolver rules, as a rebound DNS entry
would lead it."""
BAD = (
    *("Content Security Policy", "TrustedScript", "TrustedHTML"),
    *("Refused to", "Uncaught", "Error:"),
)
ASKED_MS = 1000
"""How long a page looks for something before it is asked again: each question costs milliseconds of
four processes."""
SCRIPTS = Path(__file__).parents[1] / "api/page_scripts"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@functools.cache
def script(name: str) -> str:
    """A script of `SCRIPTS`, for a page."""
    return (SCRIPTS / f"{name}.js").read_text("utf-8")


class Visitor:
    """Somebody with a browser. ``folder``: where their recordings are."""

    folder: Path

    def __init__(self, spoken: Path, profile: Path | None = None) -> None:
        """``spoken``: a wav that the microphone hears, again and again; ``profile``: where the
        browser keeps what it stores, if another is to find it."""
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        for flag in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--mute-audio",
            "--disable-dev-shm-usage",  # of which a container has little
            f"--window-size={WIDTH},{HEIGHT}", f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={as_browser_names(spoken)}",
            "--autoplay-policy=no-user-gesture-required",
            # one process for all pages, no animations, nothing else that a browser does: less work
            "--process-per-site", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--force-prefers-reduced-motion",
            "--disable-features=SpareRendererForSitePerProcess,OptimizationHints,MediaRouter",
        ):  # fmt: skip
            options.add_argument(flag)
        if profile is not None:
            options.add_argument(f"--user-data-dir={as_browser_names(profile)}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = browser_driver.start(options)
        self.driver.command_executor.client_config.timeout = PATIENCE_S  # 120 s: a busy machine
        self.driver.set_script_timeout(PATIENCE_S)
        self.log: list[str] = []

    def is_killed(self) -> None:
        """The browser ends without a chance to do anything."""
        browser_driver.kill(self.driver)

    def opens(self, server: Server, path: str = "/") -> None:
        """The page of a service, as it is for who comes for the first time."""
        self.driver.get(f"http://127.0.0.1:{server.port}{path}")
        self.sees(".page[data-ready=yes], .door")

    def keeps_talks(self, server: Server) -> None:
        """Opens the page; live talks are to become jobs of the service."""
        self.opens(server)
        self.js("localStorage.setItem('vibevoice-keeps-talks', 'true')")

    def reads(self, server: Server, name: str, seconds: int) -> None:
        """Opens the page, sends a recording of two speakers, and has its transcript."""
        self.opens(server)
        self.sends_tone(name, seconds)
        self.has_rows(seconds)

    def has_a_copy_alone(self, server: Server) -> None:
        """As `reads`, of what the service has deleted since: the browser has a copy."""
        self.reads(server, "two.wav", 4)
        self.comes_back_until(lambda: self.copies() == 1, "it is copied")
        server.client.delete(f"/v1/jobs/{server.jobs()[0]['id']}").raise_for_status()
        self.sees(".side h2", "Only in this browser")

    def copies(self) -> int:
        """How many copies of transcripts the browser has."""
        return int(self.driver.execute_async_script(script("count_copies")))

    def records(self, seconds: int = 2) -> None:
        """Records with the microphone, and goes on."""
        self.sees(".intake button", "Record").click()
        self.has_recorded(seconds)

    def has_recorded(self, seconds: int) -> None:
        """Waits until the recording is that long or longer: a busy machine may show no second."""
        time = "document.querySelector('.recording .time')?.textContent"
        self.until(f"{time} >= '0:0{seconds}'", "seconds")

    def signs_in(self, token: str) -> None:
        """Gives a token at the door."""
        field = self.sees(".door #token")
        field.clear()
        field.send_keys(token)
        field.submit()

    def is_in(self, token: str) -> None:
        """Signs in at the door, with the token there was before no longer valid."""
        self.js(f"sessionStorage.setItem('vibevoice-token', '{'x' * 40}')")
        self.comes_back_until(lambda: self.all(".door") != [], "the token is not valid")
        self.signs_in(token)
        self.until("document.querySelector('.door') === null", "it is open")
        self.until("document.querySelector('.status .quiet')", "the service is known")

    def records_as(self, server: Server, token: str) -> None:
        """Opens the page, signs in, and records."""
        self.opens(server)
        self.is_in(token)
        self.records(1)

    def types(self, text: str) -> None:
        """Says something in a conversation by the keyboard, and has the answer."""
        self.sees(".typed input").send_keys(text + ENTER)
        self.sees("[data-who=machine][data-open=no] .words", f"You said: {text}")

    def only_types(self) -> None:
        """Begins a conversation without a microphone, or the next after a break."""
        self.sees(".starting button", "Only type").click()
        self.sees(".talking[data-state=live]")

    def has_typed(self, server: Server) -> None:
        """Opens the page, whose `sockets` are known, and has typed "Before." in a conversation."""
        self.opens(server)
        self.js(script("know_sockets"))
        self.sees(".intake button", "Conversation").click()
        self.only_types()
        self.types("Before.")

    def has_rows(self, rows: int) -> None:
        """The transcript of two speakers has so many rows, at last."""
        self.sees("#main .title", "2 speakers")
        self.until(f"document.querySelectorAll('.row').length === {rows}", "all rows")

    def until(self, expression: str, what: str) -> None:
        """Waits until an expression of the page's is true."""
        asked = script("wait_until_true").replace("EXPRESSION", expression)
        wait_until(lambda: self.js(asked, ASKED_MS), what)

    def comes_back_until(self, condition: Callable[[], Any], what: str) -> Any:
        """Waits until something is so on a page that asks the service anew at once, and not after
        seconds, as it does for who comes back to its tab; its value."""

        def look() -> Any:
            self.js("document.dispatchEvent(new Event('visibilitychange'))")
            return condition()

        return wait_until(look, what)

    def sees(self, selector: str, text: str = "") -> Any:
        """What is there, once it is, with this text in it."""

        def look() -> Any:
            return self.js(script("wait_for_element"), selector, text, ASKED_MS)

        try:
            return wait_until(look, f"{selector} {text!r}")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.text()}\n{self.said()}") from None

    def presses(self, selector: str, text: str) -> None:
        """Clicks what is there, once it is; again if it moved just then, as beside lines that are
        added all the time."""
        from selenium.common.exceptions import ElementClickInterceptedException

        def pressed() -> bool:
            try:
                self.sees(selector, text).click()
            except ElementClickInterceptedException:
                return False
            return True

        wait_until(pressed, f"{selector} {text!r} takes a click")

    def all(self, selector: str) -> list[Any]:
        """All that is there now."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """What is there now."""
        return self.driver.find_element("css selector", selector)

    def text(self) -> str:
        """All that is to be read."""
        return str(self.js("return document.body.innerText"))

    def js(self, script: str, *given: object) -> Any:
        """What a script returns in the page."""
        return self.driver.execute_script(script, *given)

    @contextmanager
    def before(self, script: str) -> Iterator[None]:
        """Has a script run before those of the pages that are opened meanwhile."""
        source = {"source": script}
        added = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)

    def sends(self, *files: Path) -> None:
        """Chooses files by the button."""
        self.driver.find_element("id", "files").send_keys("\n".join(map(as_browser_names, files)))

    def tone(self, name: str, seconds: int) -> Path:
        """A recording of silence with a click a second: nothing is said, and it can be played."""
        second = struct.pack("<8000h", *(30000 if at < 80 else 0 for at in range(8000)))
        return new_file(self.folder / name, wav(second * seconds, rate=8000))

    def sends_tone(self, name: str, seconds: int) -> None:
        """Chooses such a recording, of which a segment is a second."""
        self.sends(self.tone(name, seconds))

    def drops(self, name: str, body: bytes) -> None:
        """A file let go over the page."""
        self.js(script("drop_file"), name, base64.b64encode(body).decode())

    def forgets(self) -> None:
        """The browser has nothing of this page: no copies of transcripts, no settings."""
        origin = self.js("return location.origin")
        self.js("try { sessionStorage.clear(); } catch {}")
        self.driver.get("about:blank")
        if origin.startswith("http"):
            command = "Storage.clearDataForOrigin"
            self.driver.execute_cdp_cmd(command, {"origin": origin, "storageTypes": "all"})

    def is_a_phone(self, width: int = 360, height: int = 740) -> None:
        """The page in a narrow window: all of it."""
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        self.until(f"innerWidth === {width}", "it is a phone")
        wide = self.js("return document.documentElement.scrollWidth")
        assert wide <= width, "nothing to be moved sideways"

    def rows(self) -> int:
        """How many segments stand."""
        return int(self.js("return document.querySelectorAll('.row').length"))

    def said(self) -> list[str]:
        """What the browser had to say."""
        self.log += [str(line["message"]) for line in self.driver.get_log("browser")]
        return self.log

    def wrong(self) -> list[str]:
        """What it did not let the page do, and faults of the page."""
        return [line for line in self.said() if any(word in line for word in BAD)]

    def findings(self) -> list[str]:
        """What axe has to say against the page as it stands."""
        if not self.js("return 'axe' in window"):
            self.js(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
        found = self.driver.execute_async_script(
            """const done = arguments[arguments.length - 1];
            // half the work, and what nobody reads is left out
            const options = {runOnly: arguments[0], resultTypes: ["violations"], selectors: false};
            axe.run(document, options).then((said) => done(said.violations));""",
            RULES,
        )
        return [f"{one['id']}: {node['html'][:150]}" for one in found for node in one["nodes"]]


def spoken() -> bytes:
    """Two who speak in turn, as loud as people are: noise, for a browser takes out what hums."""
    chance = random.Random(1)
    samples = [
        int(chance.uniform(-loud, loud) * 32767)
        for seconds, loud in ((1.5, 0.5), (0.9, 0.0), (1.5, 0.2), (0.9, 0.0))
        for _ in range(int(seconds * 16_000))
    ]
    return wav(struct.pack(f"<{len(samples)}h", *samples))
