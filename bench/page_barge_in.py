"""How soon a page that cannot be told to be quiet is quiet, once somebody speaks over an answer.

Headless Chromium with chromedriver and selenium (the extra `dev`) opens a page that behaves as that
of the speech-to-speech demo (`tests/support/pages/talk.html`) and hears pieces of a clip of the
wheel; each is said over the answer to the one before, by a scripted model that is never brief. What
is told is what the page saw: from the person's first loud sample until the last sound it had has
been played.

    python -m bench.page_barge_in [--times 20] [--voice espeak]
"""

from __future__ import annotations

import argparse
import http.server
import shutil
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.conversation import IN_RATE, LOADING_S, ORDER_S, Samples, model, row, sayings
from bench.page import NAMES, wait
from bench.serving import ROOT, ours, workshop

PAGE = ROOT / "tests" / "support" / "pages" / "talk.html"
GAPS_S = (2.4, 2.47, 2.53, 2.6)
"""Between two pieces: an answer is there by then, and no two begin at the same place of a frame."""
BREAK_MS = 60.0
"""Between two sounds of one answer the page takes less."""


@contextmanager
def site() -> Iterator[int]:
    """A web server that has the page alone; its port."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE.read_bytes()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def page(port: int, wire: int, spoken: Path) -> Iterator[Any]:
    """A browser that shows the page at ``port``, connected to ``wire``, and hears ``spoken`` again
    and again once somebody talks."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, NAMES)), "")
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}",
        "--autoplay-policy=no-user-gesture-required",
    ):  # fmt: skip
        options.add_argument(flag)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    try:
        driver.get(f"http://localhost:{port}/?wire={wire}")
        wait(driver, "return document.body.dataset.ready")
        yield driver
    finally:
        driver.quit()


def scene(path: Path, pieces: Sequence[Samples], gaps: Sequence[float] = GAPS_S) -> Path:
    """A recording in which they are said one after the other, with such silences behind them."""
    parts = []
    for piece, gap in zip(pieces, cycle(gaps), strict=False):
        parts += [piece, np.zeros(round(gap * IN_RATE), "<i2")]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(IN_RATE)
        file.writeframes(np.concatenate(parts).astype("<i2").tobytes())
    return path


def until_quiet(seen: dict[str, Any]) -> list[float]:
    """Seconds from each first sound of the person's that met an answer until that was heard no
    more. ``seen``: what the page wrote down, in milliseconds."""
    answers: list[list[float]] = []
    for start, end in seen["played"]:
        if answers and start - answers[-1][1] < BREAK_MS:
            answers[-1][1] = end
        else:
            answers.append([start, end])
    return [
        (end - onset) / 1000
        for onset in seen["onsets"]
        for start, end in answers
        if start <= onset <= end
    ]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--voice", default="espeak")
    wanted = parser.parse_args()
    pieces = [piece for piece in sayings() if len(piece) > ORDER_S * IN_RATE]
    with workshop() as folder, model() as (url, _), site() as port:
        spoken = scene(folder / "spoken.wav", list(islice(cycle(pieces), wanted.times)))
        settings = {"engine": "moonshine", "voice_engine": wanted.voice, "llm_model": "scripted"}
        ports = f"0:{port}"
        with ours(folder, llm=url, talk_ports=ports, **settings) as server:
            wire = server.request("GET", "/health")["talk_port"]
            with page(port, wire, spoken) as driver:
                time.sleep(LOADING_S)
                driver.execute_script("talk()")
                wait_s = sum(len(one) for one in islice(cycle(pieces), wanted.times)) / IN_RATE
                time.sleep(wait_s + wanted.times * sum(GAPS_S) / len(GAPS_S))
                seen = driver.execute_script("return seen")
    found = until_quiet(seen)
    print(
        f"{len(found)} of {wanted.times} pieces were said over an answer; errors: {seen['errors']}"
    )
    print("\n| | p50 ms | p95 ms |\n|---|---|---|")
    print(row("first loud sample → the page is quiet", found))


if __name__ == "__main__":
    main()
