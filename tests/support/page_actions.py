"""What a person does on the page, and what stands there."""

import json
from pathlib import Path
from typing import Any

from browser_visitor import CONTROL, ENTER, Visitor, script
from service_process import Server, new_file, wait_until

KEY = "0123456789abcdef" * 4
PLACE = "const audio = document.querySelector('audio'); return [audio.currentTime, audio.paused]"
LINES = "return [...document.querySelectorAll('.row .said')].map((one) => one.textContent)"
LANES = "return [...document.querySelectorAll('.lane .name')].map((one) => one.textContent)"
LEAVES = """
  globalThis.leaves = () => dispatchEvent(new Event("beforeunload", { cancelable: true }));
"""
"""Script by which a page says whether it may be left without a question."""
HOW_MANY = ".tools [aria-label='How many people speak']"
HOLD = "hold"
"""The file of the slow service that says how far it goes in a recording."""


def kept(home: Path) -> dict[str, object]:
    """Settings with which recordings are kept."""
    return {"keep_jobs": 1, "data_dir": home, "journal_key": KEY, "keep_recordings_mb": 50}


def goes_to(slow: Server, second: int | None) -> None:
    """Has it transcribe recordings to this second, and no further yet; None: to their end."""
    if second is None:
        (slow.home / HOLD).unlink(missing_ok=True)
    else:
        new_file(slow.home / HOLD, str(second))


FOCUS = "document.activeElement"


def names(visitor: Visitor) -> list[str]:
    """Who speaks, by the lanes."""
    return list(
        visitor.js(
            "return [...document.querySelectorAll('.lanes .name')].map((one) => one.textContent)"
        )
    )


def writes(visitor: Visitor, index: int, text: str) -> None:
    """Puts a text in the place of a line."""
    line(visitor, index).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(CONTROL, "a", CONTROL, text, ENTER)


def undoes(visitor: Visitor) -> None:
    """Presses Ctrl+Z."""
    from selenium.webdriver import ActionChains

    ActionChains(visitor.driver).key_down(CONTROL).send_keys("z").key_up(CONTROL).perform()


def line(visitor: Visitor, index: int) -> Any:
    """The time of a line, which takes the keys."""
    return visitor.all(".row .at")[index]


def said(visitor: Visitor, index: int) -> str:
    """The text of a line; '' while the page does not have it."""
    text = "return document.querySelectorAll('.said')[arguments[0]]?.textContent ?? ''"
    return str(visitor.js(text, index))


def refused_at_first(method: str, times: int, status: int, code: str) -> str:
    """Script of a page whose first requests of a method get an error; `refused` counts them."""
    refuses = json.dumps({"method": method, "times": times, "status": status, "code": code})
    return script("refuse_requests").replace("REFUSES", refuses)


def stores_no_copies(visitor: Visitor) -> None:
    """Have the browser store no copies of transcripts."""
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees(".storing", "No copies are stored")


def reads_with_holds(visitor: Visitor, server: Server) -> None:
    """Opens the page with `hold_answers`, and has a transcript of six lines before them."""
    with visitor.before(script("hold_answers")):
        visitor.opens(server)
    visitor.sends_tone("talk.wav", 6)
    visitor.has_rows(6)


def downloaded(visitor: Visitor, label: str) -> str:
    """What a button of the menu of downloads would save, and nothing is saved."""
    visitor.js(
        """window.saved = null;
        URL.createObjectURL = (blob) => (blob.text().then((text) => (window.saved = text)), "");
        HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };"""
    )
    visitor.sees(".choice [popovertarget]").click()
    visitor.sees("#formats button", label).click()
    wait_until(lambda: visitor.js("return saved") is not None, f"the file: {label}")
    return str(visitor.js("return saved"))


def worked_out(visitor: Visitor, module: str, expression: str, given: object) -> Any:
    """The value of an expression over what a module of the page exports (`the`) and ``given``."""
    return visitor.driver.execute_async_script(
        f"""const [given, done] = arguments;
        const app = document.querySelector("script[type=module]").src;
        import(app.replace("app.js", "{module}")).then((the) => done({expression})).catch(done);""",
        given,
    )


LIVE = "Live captions"


def goes_live(visitor: Visitor, server: Server) -> None:
    """Opens the page, whose `sockets` are known, and has captions."""
    visitor.opens(server)
    visitor.js(script("know_sockets"))
    visitor.sees(".intake button", LIVE).click()


def captions(visitor: Visitor, more: int = 1) -> int:
    """So many lines more; how many there are."""
    rows = visitor.rows()
    wait_until(lambda: visitor.rows() >= rows + more, f"captions\n{visitor.text()}")
    return visitor.rows()
