"""What `vibevoice-asr live` does with its audio and its file where it ends early."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recordings import wav
from service_process import new_file
from virtual_time import virtual_time

from sidecar.cli import audio_input, live
from sidecar.cli.backends import LiveBackend, ServiceTarget
from sidecar.cli.live import (
    LiveDisplay,
    _listen,  # internal: `run` needs a service and a device
)
from sidecar.cli.live_output import open_output
from sidecar.cli.shown_session import ShownSession
from sidecar.interfaces.live_events import Summary
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.transcripts.transcript import Segment, Transcript

BLOCKS = [bytes([number]) * 4 for number in range(20)]


class _Microphone:
    """A device that has heard all its blocks as soon as it is open."""

    PortAudioError = OSError
    overflows = frozenset[int]()
    """Blocks before which it lost audio."""

    def query_devices(self, *_: object) -> dict[str, Any]:
        return {"name": "Desk", "max_input_channels": 1, "default_samplerate": 16_000.0}

    def RawInputStream(self, callback: Any, **_: Any) -> "_Microphone":  # noqa: N802
        self.callback = callback
        return self

    def __enter__(self) -> None:
        for number, block in enumerate(BLOCKS):
            status = SimpleNamespace(input_overflow=number in self.overflows)
            self.callback(block, len(block) // 2, None, status)

    def __exit__(self, *_: object) -> None:
        pass


async def test_all_that_a_microphone_heard_before_ctrl_c_is_sent_before_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audio_input, "import_sounddevice", _Microphone)
    stopped, over = asyncio.Event(), asyncio.Event()
    sent: list[bytes] = []

    async def send(chunk: bytes) -> None:
        sent.append(chunk)
        stopped.set()
        for _ in range(9):  # an engine that is behind; everything else goes on
            await asyncio.sleep(0)

    async def finish() -> None:
        sent.append(b"end")
        over.set()

    async def events() -> AsyncIterator[NumberedEvent]:
        await over.wait()
        yield NumberedEvent(1, Summary(Transcript((), "en", 2.0, "scripted", "fp32")), None)

    _, audio = audio_input.open_input(None, None, stopped)
    backend, display = LiveBackend(send, finish, events), LiveDisplay("text", print, labels=True)
    shown = ShownSession(display.event)
    await _listen(backend, audio, display, shown)
    assert sent == [*BLOCKS, b"end"]


async def test_audio_that_a_busy_machine_did_not_take_is_told_once_unless_it_was_before_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audio_input, "import_sounddevice", _Microphone)
    for overflows, told in ((frozenset({0}), 0), (frozenset({3, 7}), 1)):
        monkeypatch.setattr(_Microphone, "overflows", overflows)
        stopped, heard = asyncio.Event(), list[bytes]()
        _, audio = audio_input.open_input(None, None, stopped)
        async for block in audio:
            heard.append(block)
            stopped.set()
        assert heard == BLOCKS
        assert capsys.readouterr().err.count("words may be missing") == told


def test_transcript_is_written_before_the_service_ends_which_another_ctrl_c_cuts_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = Transcript((Segment(0.0, 1.0, "Ever tried.", None),), "en", 2.0, "scripted", "fp32")

    async def nothing(*_: object) -> None:
        pass

    async def events() -> AsyncIterator[NumberedEvent]:
        yield NumberedEvent(1, Summary(said), None)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[LiveBackend]:
        yield LiveBackend(nothing, nothing, events)
        raise asyncio.CancelledError  # as Ctrl-C while it waits for the service's end

    monkeypatch.setattr(live, "open_live_backend", opened)
    recording = new_file(tmp_path / "talk.wav", wav(bytes(32_000)))
    options = live.LiveCommandOptions(
        source=recording, format="srt", output=tmp_path / "talk.srt", pace=0, target=ServiceTarget()
    )
    with pytest.raises(asyncio.CancelledError):
        live.run(options)
    written = (tmp_path / "talk.srt").read_text("utf-8")
    assert "-->" in written
    assert "Ever tried." in written


@virtual_time
async def test_audio_that_comes_slowly_after_ctrl_c_is_read_for_a_second_in_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        async def run(self, *_: object) -> bytes:
            await asyncio.sleep(0.4)
            return b"sound"

    monkeypatch.setattr(audio_input, "ThreadLimiter", lambda *_: Slow())
    with open(os.devnull) as stdin:  # noqa: ASYNC230 - it does not block
        monkeypatch.setattr(sys, "stdin", stdin)
        (ended := asyncio.Event()).set()
        assert len([one async for one in audio_input.read_stdin(1 << 12, ended)]) == 2


@pytest.mark.parametrize("written", ["", "Theirs."])
def test_file_of_a_session_that_failed_before_a_word_is_left_only_if_somebody_wrote_to_it(
    written: str, tmp_path: Path
) -> None:
    path = tmp_path / "talk.txt"
    with open_output(path, "text", "talk"):
        if written:
            path.write_text(written, "utf-8")
    assert [one.read_text("utf-8") for one in tmp_path.iterdir()] == [written] * bool(written)
