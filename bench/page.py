"""The page at `/`: its size on the wire, how soon it can be used, a long transcript, its memory.

    python -m bench.page

In headless Chromium with chromedriver and selenium (the extra `dev`), on a service of its own with
the scripted engine. The long transcript is that of an hour of four people, made up in the page:
1,500 segments, 12,000 words. Beside the memory stands what an empty page has in the same browser.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

LONG = 1500
WORDS = 8
VOICES = 4
STARTS = 5
FILES = 10
SERVES_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")

INTERCEPTS = """
const long = LONG, words = WORDS, voices = VOICES;
const segments = Array.from({length: long}, (_, i) => {
  const start = i * 2.4;
  const said = Array.from({length: words}, (_, j) => `word${(i * 7 + j * 3) % 211}`);
  const at = (j) => start + j * 0.28;
  return {speaker: `Speaker_${Math.floor(i / 2) % voices}`, start_time: start,
    end_time: start + 2.3, text: said.join(" ") + ".", flags: [],
    words: said.map((text, j) => ({text, start_time: at(j), end_time: at(j) + 0.25}))};
});
const body = JSON.stringify({segments, metadata: {duration: long * 2.4, language: "en",
  num_speakers: voices, engine: "made up", model_precision: "none", processing_time: 1,
  diarized: true, no_speech: false, job_id: "x", warnings: []}});
const real = window.fetch;
let revision = 0;
const edited = ({operations: [{name}]}) => JSON.stringify({
  revision: revision += 1, undo: revision, redo: 0, speakers: [],
  segments: segments.flatMap((segment, index) => segment.speaker === "Speaker_0"
    ? [{index, segment: {...segment, name}}] : [])});
const answer = (address, {method, body: sent} = {}) => method === "PATCH" ? edited(JSON.parse(sent))
  : /history/.test(address) ? JSON.stringify({revision, undo: revision, redo: 0}) : body;
window.fetch = async (address, ...more) => /transcript/.test(address)
  ? new Response(answer(address, ...more), {headers: {"Content-Type": "application/json"}})
  : real(address, ...more);
"""
"""Puts the long transcript in the place of every transcript; every edit is a speaker's new name."""


def made_up() -> str:
    """The script that has the page show an hour of four people, whatever was sent."""
    script = INTERCEPTS.replace("LONG", str(LONG)).replace("WORDS", str(WORDS))
    return script.replace("VOICES", str(VOICES))


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """A service of its own; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("VIBEVOICE")}
    env |= {
        "VIBEVOICE_CONFIG": str(folder / "none"),
        "VIBEVOICE_DATA_DIR": str(folder / "data"),
        "VIBEVOICE_ENGINE": "scripted",
        "VIBEVOICE_PORT": str(port),
        "VIBEVOICE_VOICE_ENGINE": "scripted",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "sidecar.main"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert b'"ready"' in process.stdout.readline()
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(SERVES_S)


def browser(*, traced: bool = False) -> Any:
    """Chromium, driven; ``traced``: it writes down every task."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, NAMES)), "")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,860",
                 "--enable-precise-memory-info", "--autoplay-policy=no-user-gesture-required",
                  "--js-flags=--expose-gc"):  # fmt: skip
        options.add_argument(flag)
    if traced:
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        wanted = {"enableNetwork": False, "enablePage": False, "traceCategories": TRACED}
        options.add_experimental_option("perfLoggingPrefs", wanted)
    return webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )


def wait(driver: Any, script: str) -> Any:
    """What a script returns once that is something."""
    deadline = time.monotonic() + SERVES_S
    while not (value := driver.execute_script(script)):
        if time.monotonic() > deadline:
            raise TimeoutError(script)
        time.sleep(0.02)
    return value


def on_the_wire() -> dict[str, int]:
    """Bytes of all of it, compressed and plain."""
    from sidecar.api.page import PageFiles

    files = PageFiles()
    all_files = [files.front, *(files.get(files.digest, name) for name in files)]
    return {
        "files": len(all_files),
        "compressed": sum(len(one.compressed) for one in all_files if one),
        "plain": sum(len(one.body) for one in all_files if one),
    }


def starts(driver: Any, url: str) -> list[float]:
    """Milliseconds from the click to a page that can be used, with nothing kept from before."""
    took = []
    for _ in range(STARTS):
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        driver.get("about:blank")
        driver.get(url)
        took.append(wait(driver, READY))
    return took


MARK = "bench: "
RENDERS = "CrRendererMain"
SETTLES_S = 1.0
TRACED = "toplevel,blink.user_timing,disabled-by-default-devtools.timeline"
READY = """
if (!document.querySelector(".page[data-ready=yes] .main")) return 0;
return window.readyAt ??= performance.now();
"""
MARKED = """
new MutationObserver((_, watching) => {
  if (!document.querySelector(".page[data-ready=yes] .main")) return;
  window.readyAt = performance.now();
  watching.disconnect();
}).observe(document, {subtree: true, childList: true, attributes: true});
"""


def during(driver: Any, what: str, script: str) -> None:
    """Run a script, and have what is done then and a while after under a name in the trace."""
    driver.execute_script(f"performance.mark('{MARK}{what}')")
    driver.execute_async_script(f"const done = arguments[arguments.length - 1];\n{script}")
    time.sleep(SETTLES_S)


def longest_tasks(driver: Any) -> dict[str, dict[str, float]]:
    """By what was done: the longest task of the page, by the clock and by the processor (ms). What
    else runs on the machine costs tasks time of the clock."""
    events: list[dict[str, Any]] = []
    for line in driver.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Tracing.dataCollected":
            events.append(message["params"])
    marks = sorted((one["ts"], one["name"][len(MARK) :], one["pid"])
                   for one in events if one["name"].startswith(MARK))  # fmt: skip
    named = [one for one in events if one["name"] == "thread_name"]
    threads = {(one["pid"], one["tid"]) for one in named if one["args"]["name"] == RENDERS}
    found: dict[str, dict[str, float]] = {}
    for (begin, what, pid), end in zip(marks, [*(one[0] for one in marks[1:]), inf], strict=True):
        tasks = [one for one in events
                 if one["name"].endswith("RunTask") and begin <= one["ts"] < end
                 and (one["pid"], one["tid"]) in threads and one["pid"] == pid]  # fmt: skip
        longest = {"clock": "dur", "processor": "tdur"}
        found[what] = {
            name: max(one.get(field, 0) for one in tasks) / 1000 for name, field in longest.items()
        }
    return found


SCROLLS = """
let at = 0;
const step = () => {
  scrollTo(0, at += 1200);
  if (at < document.documentElement.scrollHeight) requestAnimationFrame(step); else done();
};
step();
"""
TYPES = """
const field = document.querySelector(".search input");
const text = "word17 word";
let typed = 0;
const step = () => {
  field.value = text.slice(0, typed += 1);
  field.dispatchEvent(new Event("input", {bubbles: true}));
  if (typed < text.length) setTimeout(step, 60); else done();
};
step();
"""
WALKS = """
const next = document.querySelector("[aria-label='Next match']");
let count = 0;
const step = () => { next.click(); if ((count += 1) < 40) setTimeout(step, 30); else done(); };
step();
"""
RENAMES = """
document.querySelector(".lane").click();
setTimeout(() => {
  const field = document.getElementById("called");
  field.value = "Nell";
  field.dispatchEvent(new Event("input", {bubbles: true}));
  setTimeout(() => {
    field.form.requestSubmit();
    const named = () => document.querySelectorAll(".row[data-voice='0'].turn").length;
    const wait = () => [...document.querySelectorAll(".row.turn[data-voice='0'] .name")]
      .every((one) => one.textContent === "Nell") && named() ? done() : setTimeout(wait, 20);
    wait();
  }, 100);
}, 300);
"""
CONVERSES = """
const there = (selector) => new Promise((come) => {
  const look = () => document.querySelector(selector) ? come(document.querySelector(selector)) : setTimeout(look, 20);
  look();
});
const button = (text) => [...document.querySelectorAll("button")].find((one) => one.textContent.includes(text));
(async () => {
  button("Conversation").click();
  await there(".starting .choice");
  button("Only type").click();
  await there(".talking[data-state=live]");
  const field = await there(".typed input");
  for (let said = 1; said <= 5; said += 1) {
    field.value = "This is said, and said again, so that there is something to hear.";
    field.form.requestSubmit();
    while (document.querySelectorAll("[data-who=machine][data-open=no]").length < said)
      await new Promise((come) => setTimeout(come, 50));
  }
  done();
})();
"""  # noqa: E501


def recording(path: Path) -> Path:
    """Three seconds of nothing."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(96_000))
    return path


def heap_mb(driver: Any) -> float:
    """What the page holds after its garbage is gone."""
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    return float(driver.execute_script("return performance.memory.usedJSHeapSize")) / 1e6


def run() -> dict[str, Any]:
    """All figures."""
    said: dict[str, Any] = {"wire": on_the_wire()}
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as url:
        driver = browser()
        try:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": MARKED})
            driver.get("about:blank")
            empty = heap_mb(driver)
            took = starts(driver, url)
            said["interactive_ms"] = {"median": statistics.median(took), "worst": max(took)}
            files = [recording(Path(name) / f"talk {number}.wav") for number in range(FILES)]
            show(driver, files[0])
            one = heap_mb(driver)
            for file in files[1:]:
                driver.find_element("id", "files").send_keys(str(file))
            wait(
                driver,
                f"return document.querySelectorAll('.job[data-state=done]').length === {FILES}",
            )
            for number in range(FILES):
                driver.find_elements("css selector", ".job .pick")[number].click()
                wait(driver, f"return document.querySelectorAll('.row').length === {LONG}")
            said["heap_mb"] = {
                "empty page": empty,
                "one file": one,
                "ten files, each read": heap_mb(driver),
            }
        finally:
            driver.quit()
        said["longest_task_ms"] = tasks(url, files[0])
    return said


def show(driver: Any, file: Path) -> None:
    """Have the long transcript shown."""
    driver.execute_script(made_up())
    driver.find_element("id", "files").send_keys(str(file))
    wait(driver, f"return document.querySelectorAll('.row').length === {LONG}")


def tasks(url: str, file: Path) -> dict[str, dict[str, float]]:
    """What is done with the long transcript, and the longest task of each."""
    driver = browser(traced=True)
    driver.set_script_timeout(SERVES_S)
    try:
        driver.get(url)
        wait(driver, "return document.querySelector('.page[data-ready=yes] .main') !== null")
        during(driver, "shown", "done()")
        show(driver, file)
        time.sleep(SETTLES_S)
        for what, script in (
            ("scrolled", SCROLLS),
            ("searched", TYPES),
            ("walked", WALKS),
            ("a speaker renamed", RENAMES),
            ("a conversation", CONVERSES),
        ):
            during(driver, what, script)
        return longest_tasks(driver)
    finally:
        driver.quit()


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
