"""A conversation on the page: from a person's first sound, or a key, to silence.

A real browser hears pieces of a clip of the wheel through its microphone, one every few seconds,
and each comes over an answer. What the microphone gives and what goes to the loudspeaker is looked
at in the page's own audio graph, block by block (5 ms), by a worklet that is put beside the page's:
so what is told is what an oscilloscope on both would show, but for the latencies of the devices,
which the browser says besides. The microphone is looked at behind the browser's echo cancellation.

    python -m bench.page_conversation [--turns 20] [--voice espeak]
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.conversation import ANSWER, IN_RATE, ORDER_S, row, sayings
from bench.page import NAMES
from bench.serving import ours, workshop

PAUSE_S = 7.0
"""Behind each piece: its answer fits in, and the beginning of the next one."""
MOST_PIECES = 8
LOUD = 0.01
QUIET_S = 0.6
"""Silence that is no pause between two sentences."""
CALM_S = 0.5
SPOKE_S = 0.4
LATEST_S = 3.0
KEY_AFTER_S = 1.5
WAITS_S = 90.0
BLOCK = 128

WATCHES = """
const real = AudioNode.prototype.connect;
const code = `registerProcessor("watch", class extends AudioWorkletProcessor {
  seen = [];
  process(inputs) {
    const loud = ([one]) => one ? Math.sqrt(one.reduce((sum, x) => sum + x * x, 0) / one.length) : 0;
    this.seen.push([currentFrame / sampleRate, loud(inputs[0]), loud(inputs[1])]);
    if (this.seen.length >= 64) this.port.postMessage(this.seen.splice(0));
    return true;
  }
});`;
window.seen = [];
window.keys = [];
const watch = async (context) => {
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], {type: "text/javascript"})));
  const node = new AudioWorkletNode(context, "watch", {numberOfInputs: 2});
  node.port.onmessage = ({data}) => seen.push(...data);
  real.call(node, context.destination);
  window.context = context;
  return node;
};
AudioNode.prototype.connect = function (to, ...more) {
  const port = this instanceof MediaStreamAudioSourceNode ? 0 : to instanceof AudioDestinationNode ? 1 : -1;
  if (port >= 0) {
    this.context.watching ??= watch(this.context);
    this.context.watching.then((node) => real.call(this, node, 0, port));
  }
  return real.call(this, to, ...more);
};
addEventListener("keydown", ({key}) => key === "Escape" && keys.push(context.currentTime), true);
"""  # noqa: E501
"""Has `seen` hold when, how loud the microphone and how loud the page is; `keys` when one fell."""


def microphone(path: Path) -> Path:
    """Pieces of the clip that are no mere "yes", with pauses behind; a browser plays it again."""
    pieces = [one for one in sayings() if len(one) > ORDER_S * IN_RATE][:MOST_PIECES]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(IN_RATE)
        for piece in pieces:
            file.writeframes(piece.tobytes() + bytes(2 * round(PAUSE_S * IN_RATE)))
    return path


@contextmanager
def browser(hears: Path) -> Iterator[Any]:
    """Chromium with that microphone."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, NAMES)), "")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,860",
                 "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
                 f"--use-file-for-fake-audio-capture={hears}",
                 "--autoplay-policy=no-user-gesture-required"):  # fmt: skip
        options.add_argument(flag)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCHES})
        yield driver
    finally:
        driver.quit()


def find(driver: Any, selector: str, text: str = "") -> Any:
    """What is there, once it is."""
    deadline = time.monotonic() + WAITS_S
    while time.monotonic() < deadline:
        for one in driver.find_elements("css selector", selector):
            if text in one.text:
                return one
        time.sleep(0.05)
    raise TimeoutError(f"{selector} {text!r}\n{driver.find_element('tag name', 'body').text}")


def begin(driver: Any, url: str, button: str) -> None:
    """A conversation."""
    driver.get(url)
    find(driver, ".intake button", "Conversation").click()
    find(driver, ".starting button", button).click()
    find(driver, ".talking[data-state=live]")


def ask(driver: Any) -> None:
    """Something that is answered at length."""
    driver.find_element("css selector", ".typed input").send_keys(ANSWER + "\ue007")


def phase(driver: Any) -> str:
    """What the conversation is doing."""
    said = driver.execute_script("return document.querySelector('.talking')?.dataset.phase")
    return str(said or "over")


def spoken_over(driver: Any, turns: int) -> None:
    """Have so many answers spoken over."""
    for _ in range(turns):
        deadline = time.monotonic() + WAITS_S
        while phase(driver) != "idle" and time.monotonic() < deadline:
            time.sleep(0.02)
        ask(driver)
        before = len(driver.find_elements("css selector", "[data-who=person]"))
        while len(driver.find_elements("css selector", "[data-who=person]")) <= before + 1:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def keyed(driver: Any, turns: int) -> None:
    """Have so many answers ended by a key."""
    for _ in range(turns):
        ask(driver)
        find(driver, "[data-phase=speaking]")
        time.sleep(KEY_AFTER_S)
        driver.find_element("css selector", ".typed input").send_keys("\ue00c")
        find(driver, "[data-phase=idle]")
        time.sleep(QUIET_S)


def watched(driver: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows of seconds, microphone, loudspeaker."""
    time.sleep(1.0)
    return np.array(driver.execute_script("return seen"), np.float64)


def onsets(times: Sequence[float], loud: Sequence[bool]) -> Iterator[float]:
    """When somebody begins to speak after some silence."""
    last = float("-inf")
    for at, is_loud in zip(times, loud, strict=True):
        if is_loud:
            if at - last > CALM_S:
                yield at
            last = at


def silence_after(begins: float, times: Sequence[float], sounds: Sequence[bool]) -> float | None:
    """How long the page was still heard after that; None if it was silent already or went on."""
    heard = [at for at, is_loud in zip(times, sounds, strict=True) if is_loud]
    if not any(begins - SPOKE_S <= at <= begins for at in heard):
        return None
    last = begins
    for at in heard:
        if at > begins:
            if at - last > QUIET_S:
                break
            last = at
    return last - begins if last - begins < LATEST_S else None


def figures(name: str, found: Sequence[float | None], driver: Any) -> None:
    """p50 and p95, and what the browser says of its devices."""
    kept = [one for one in found if one is not None]
    latency = driver.execute_script(
        "return [context.baseLatency, context.outputLatency, context.sampleRate]"
    )
    print(f"| {name} → silence, {len(kept)} answers | p50 ms | p95 ms |\n|---|---|---|")
    if kept:
        print(row("of the page's sound", kept))
        print(f"\nall: {' '.join(f'{1000 * one:.0f}' for one in sorted(kept))}")
    print(f"base latency, output latency, rate: {json.dumps(latency)}\n")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--voice", default="espeak")
    parser.add_argument("--engine", default="moonshine")
    wanted = parser.parse_args()
    with workshop() as folder:
        path = microphone(Path(folder) / "microphone.wav")
        with (
            ours(folder, engine=wanted.engine, voice_engine=wanted.voice) as server,
            browser(path) as driver,
        ):
            url = f"http://127.0.0.1:{server.port}/"
            begin(driver, url, "Start")
            spoken_over(driver, wanted.turns)
            seen = watched(driver)
            times, sounds = list(seen[:, 0]), list(seen[:, 2] > LOUD)
            began = list(onsets(times, list(seen[:, 1] > LOUD)))
            figures("first loud sample", [silence_after(at, times, sounds) for at in began], driver)
            begin(driver, url, "Only type")
            keyed(driver, wanted.turns // 2)
            seen = watched(driver)
            times, sounds = list(seen[:, 0]), list(seen[:, 2] > LOUD)
            fell = driver.execute_script("return keys")
            figures("key", [silence_after(at, times, sounds) for at in islice(fell, 99)], driver)


if __name__ == "__main__":
    main()
