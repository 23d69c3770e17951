"""The app of examples/tauri-host as users see it; `make test-tauri` builds it and runs this."""

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tiny_whisper
from model_hub import Hub
from not_tested import missing
from recordings import Studio
from service_process import PATIENCE_S, REPOSITORY, new_file, service_environment, wait_until
from tiny_vibevoice import clip
from web_driver import PACKAGES, App, Desktop

from sidecar.checkpoints.model_repositories import WHISPER_MODELS
from sidecar.cli.open import sample

PROGRAMS = os.environ.get("VIBEVOICE_TEST_TAURI")
pytestmark = [
    pytest.mark.skipif(
        PROGRAMS is None,
        reason=missing("the built app of examples/tauri-host", "test-tauri", "make"),
    ),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=missing(program, package))
        for program, package in PACKAGES.items()
    ),
]


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file; while it is there, the scripted engine goes no further than the first second."""
    return new_file(tmp_path / "hold", "")


@pytest.fixture
def open_app(tmp_path: Path, hold: Path) -> Iterator[Callable[..., App]]:
    """Opens the app with the service of this source tree, or with another program."""
    words = shlex.join([sys.executable, "-m", "sidecar.main"])
    script = new_file(tmp_path / "service", f'#!/bin/sh\nexec {words} "$@"\n', 0o755)
    desktops: list[Desktop] = []

    def start(engine: str = "scripted", program: Path = script, **variables: str) -> App:
        desktop = Desktop(
            {
                **service_environment(tmp_path, engine=engine, scripted_hold=hold),
                **variables,
                "VIBEVOICE_EXECUTABLE": str(program),
                "XDG_DATA_HOME": str(tmp_path / "share"),
                "PYTHONPATH": str(REPOSITORY),
                "TALK_TO_TEXT_BEEPS": "1",
            }
        )
        desktops.append(desktop.__enter__())
        app = App(desktop, Path(str(PROGRAMS)) / "tauri-host")
        wait_until(lambda: app.text("#service"), "the page is alive")
        return app

    yield start
    for desktop in desktops:
        desktop.__exit__()


def service_of(app: App) -> psutil.Process:
    for one in app.process.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # of the page's, or one that was killed
            if "sidecar.main" in one.cmdline():
                return one
    raise AssertionError("the app has no service")


def assert_gone(family: list[psutil.Process]) -> None:
    """A process that has ended may wait for the system's first process to take note of it."""
    assert len(family) >= 2
    _, alive = psutil.wait_procs(family, PATIENCE_S)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


def test_dropped_recording_becomes_transcript_with_speakers_and_closed_app_leaves_no_process(
    open_app: Callable[..., App],
) -> None:
    app = open_app("auto")
    app.drop(sample())
    app.wait_for("#result", "Copy")
    lines = app.script("return [...document.querySelectorAll('article')].map(x => x.innerText)")
    assert len(lines) > 1
    assert {line.split("\n")[1] for line in lines} >= {"Speaker 1", "Speaker 2"}
    app.click("#result button")
    app.wait_for("#result", "Copied")
    family = [app.process, *app.process.children(recursive=True)]
    app.close()
    assert_gone(family)


def test_cancelled_recording_says_so_and_next_one_is_transcribed(
    open_app: Callable[..., App], hold: Path, studio: Studio
) -> None:
    app = open_app()
    app.drop(studio.voice)
    app.wait_for("#service", "Working")
    app.click("#cancel")
    app.wait_for("#message", "Cancelled.")
    app.wait_for("#drop", "Drop a recording")
    hold.unlink()
    app.drop(studio.voice)
    app.wait_for("#result", "Speaker 1")


def test_service_that_is_killed_in_job_is_started_again_and_job_is_done(
    open_app: Callable[..., App], hold: Path, studio: Studio
) -> None:
    app = open_app()
    app.drop(studio.voice)
    app.wait_for("#service", "Working")
    wait_until(lambda: service_of(app).children(), "the engine runs")
    killed = service_of(app)
    killed.kill()
    app.wait_for("#trouble", "stopped unexpectedly")
    assert "crashed" in app.script("return document.querySelector('#trouble-log').textContent")
    hold.unlink()
    app.wait_for("#result", "Copy")
    assert app.text("#result").count("Speaker 1") + app.text("#result").count("Speaker 2") >= 3
    assert service_of(app).pid != killed.pid
    app.wait_for("#service", "Ready")


def test_app_shows_words_from_microphone_live_and_a_transcript_after_stop(
    open_app: Callable[..., App], hold: Path
) -> None:
    app = open_app()
    app.click("#tab-live")
    app.click("#speak")
    wait_until(lambda: app.text("#live-result") or app.text("#live-message"), "words")
    assert app.text("#live-message") == ""
    app.click("#speak")  # also before the session has begun: words may come earlier
    app.wait_for("#live-result", "Copy")
    app.wait_for("#speak", "Start listening")


def test_killed_app_leaves_no_service_and_no_engine_process(
    open_app: Callable[..., App], hold: Path, studio: Studio
) -> None:
    app = open_app()
    app.drop(studio.voice)
    app.wait_for("#service", "Working")
    service = wait_until(lambda: service_of(app).children() and service_of(app), "the engine runs")
    family = [service, *service.children(recursive=True)]
    app.process.send_signal(signal.SIGKILL)
    assert_gone(family)


def test_model_of_chosen_language_is_offered_can_be_cancelled_and_is_used_also_after_a_crash(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    german = clip(tiny_whisper.PROSE)
    with Hub({WHISPER_MODELS["small"].repository: tiny_whisper.model()}, trickle=True) as hub:
        hub.stall = {"model.bin": 200_000}
        downloads = {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": hub.url}
        online = {"HF_HUB_OFFLINE": "0", "VIBEVOICE_PRECISION": "fp32"}
        app = open_app("auto", **downloads, **online)
        app.wait_for("#service", "Ready")
        choose = "const s = document.querySelector('#language'); s.value = arguments[0]; "
        app.script(f"{choose} s.dispatchEvent(new Event('change'))", "de")
        offer = app.wait_for("#model", "not on this computer")
        assert "MB" in offer
        app.click("#model-get")
        app.wait_for("#model", " of ")
        assert hub.stalled.wait(PATIENCE_S)
        app.drop(sample())  # the embedded engine works on
        app.wait_for("#result", "Copy")
        app.click("#model-cancel")
        app.wait_for("#model", "not on this computer")
        hub.stall = {}
        app.click("#model-get")
        hidden = "return document.querySelector('#model').hidden"
        wait_until(lambda: app.script(hidden), "the model is used")
    for crash in (True, False):
        app.script("document.querySelector('#result').replaceChildren()")
        app.drop(german)
        app.wait_for("#result", "gescheitert")
        app.wait_for("#result", "Copy")
        if crash:
            service_of(app).kill()
            app.wait_for("#trouble", "stopped unexpectedly")


def test_app_without_service_says_that_it_does_not_start_and_offers_to_try_again(
    open_app: Callable[..., App], tmp_path: Path
) -> None:
    app = open_app(program=tmp_path / "none")
    shown = app.wait_for("#trouble", "does not start")
    assert "Try again" in shown
    app.click("#trouble-retry")
    app.wait_for("#trouble", "does not start")
