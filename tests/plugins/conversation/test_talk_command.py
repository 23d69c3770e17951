"""`vibevoice-asr talk` as people run it: a real process, a real service, a real terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_terminal import SOUND_DEVICES, ended, start_command
from recordings import wav
from scripted_speech import RATE, recorded, talk, tone
from service_process import (
    PATIENCE_S,
    Server,
    StartServer,
    free_port,
    shown_on,
    shown_until,
    wait_for_ends,
    wait_until,
)
from systems import posix_module
from websockets.asyncio.server import ServerConnection, serve

from sidecar import errors
from sidecar.cli import audio_input
from sidecar.plugins.conversation import talk_client
from sidecar.plugins.conversation.talk_client import connect_talk

pty = posix_module("pty")

Starts = Callable[..., "subprocess.Popen[bytes]"]
LONG = " ".join(["This is a long answer that goes on, so that there is time before it ends."] * 20)


@pytest.fixture
def converse(talks: Server, tmp_path: Path) -> Starts:
    """Starts the command with some of its options; the service is the one that runs here."""

    def start(
        *arguments: object, environment: dict[str, str] | None = None, **how: Any
    ) -> subprocess.Popen[bytes]:
        here = {"VIBEVOICE_ENGINE": "scripted", "VIBEVOICE_PORT": str(talks.port)}
        here |= environment or {}
        return start_command(tmp_path, "talk", *arguments, environment=here, **how)

    return start


def test_typed_lines_are_printed_with_their_answers_and_blank_ones_are_skipped(
    converse: Starts,
) -> None:
    said, complained = ended(converse("--text"), typed="Hello there.\n\n  How are you?  \n")
    assert said.splitlines() == [
        "You: Hello there.",
        "Machine: You said: Hello there.",
        "You: How are you?",
        "Machine: You said: How are you?",
    ]
    assert complained == ""


def test_failed_answer_in_a_pipe_is_reported_once_and_fails_the_command(
    converse: Starts, start_server: StartServer
) -> None:
    broken = start_server(llm=f"http://127.0.0.1:{free_port()}", voice_engine="none")
    said, complained = ended(converse("--text", "--server", broken.url), 1, typed="How are you?\n")
    assert said == "You: How are you?\n"
    assert len(complained.splitlines()) == 1


@pytest.mark.slow
def test_speech_from_a_recording_file_is_answered(converse: Starts, tmp_path: Path) -> None:
    path = tmp_path / "question.wav"
    path.write_bytes(
        wav(recorded(talk(0.3)[: -RATE // 2]))
    )  # what ends it is the silence behind the end
    said, _ = ended(converse("--file", path))
    you, machine = said.splitlines()
    assert re.fullmatch(r"You: .*w299 w299.*", you)
    assert machine == f"Machine: You said: {you.removeprefix('You: ')}"


@pytest.mark.slow
def test_talk_without_a_running_service_starts_one_that_ends_with_it(converse: Starts) -> None:
    elsewhere = {"VIBEVOICE_PORT": str(free_port())}
    process = converse("--text", environment=elsewhere, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"Hello.\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"You: Hello.\n"
    family = psutil.Process(process.pid).children(recursive=True)
    assert family, "the service, and its processes"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, complained = ended(process, 130)
    assert complained == ""
    wait_for_ends(family)


def loud_s(path: Path) -> float:
    """Seconds of sound that are none of silence."""
    raw = path.read_bytes()
    return (len(raw) - raw.count(0)) / 2 / RATE


@pytest.mark.slow
def test_devices_option_lists_microphones_and_loudspeakers(converse: Starts) -> None:
    listed, _ = ended(converse("--devices", environment=SOUND_DEVICES))
    assert listed.splitlines() == [
        "Microphones:", "* 0: Desk (16000 Hz, mono)", "Loudspeakers:", "* 1: Boom (16000 Hz, mono)"
    ]  # fmt: skip


@pytest.mark.slow
def test_speech_or_enter_interrupts_an_answer(converse: Starts, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    devices = {**SOUND_DEVICES, "HEARD": str(heard)}
    process = converse("--speaker", "Boom", environment=devices)
    assert process.stdout is not None
    said = [process.stdout.readline().decode()]
    while said[-1] and not said[-1].endswith("…\n"):  # how an answer ends that was spoken over
        said.append(process.stdout.readline().decode())
    assert said[-1], said
    assert re.fullmatch(r"You: .*w299 w299.*\n", said[0])
    assert loud_s(heard) > 0, "it was heard"
    process.send_signal(signal.SIGINT)
    _, complained = ended(process)  # a microphone has no other end
    assert "Traceback" not in complained
    heard.unlink()
    ours, theirs = pty.openpty()
    process = converse("--text", "--aloud", environment=devices, stdin=theirs)
    os.close(theirs)
    os.write(ours, f"{LONG}\n".encode())
    wait_until(lambda: heard.exists() and loud_s(heard) > 1, "it speaks")
    os.write(ours, b"\n")
    assert process.stdout is not None
    assert process.stdout.readline().decode() == f"You: {LONG}\n"
    answer = process.stdout.readline().decode()
    assert answer.startswith("Machine: You said")
    assert answer.endswith("…\n")
    process.send_signal(signal.SIGINT)
    ended(process, 130)
    os.close(ours)


def test_talk_in_a_terminal_redraws_a_growing_answer_and_ends_without_traceback(
    converse: Starts,
) -> None:
    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": ""}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = converse("--text", environment=terminal, **pipes)
    os.close(theirs)
    seen = shown_until(ours, b"> ")
    assert b"repeat answers" in seen
    os.write(ours, b"Hello there.\n")
    seen += shown_until(ours, b"Machine: ")
    process.send_signal(signal.SIGINT)
    seen += shown_on(ours)
    assert process.wait(PATIENCE_S) == 130
    assert b"\x1b[2K" in seen, "a line that changes"
    assert b"Traceback" not in seen


@pytest.mark.parametrize("end", ["ctrl-c", "service killed"])
def test_words_of_a_turn_in_progress_are_printed_where_talk_ends(
    end: str, converse: Starts, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(voice_engine="none")
    path = tmp_path / "long.wav"
    path.write_bytes(wav(recorded(tone(300))))
    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": "1"}
    process = converse(
        *("--file", path, "--server", server.url), environment=terminal, stdout=theirs
    )
    os.close(theirs)
    assert b"You: " not in shown_until(ours, b"w299")
    if end == "ctrl-c":
        process.send_signal(signal.SIGINT)
    else:
        server.process.kill()
    seen = re.sub(rb"\x1b\[[\d;?]*\w", b"", shown_on(ours))
    assert process.wait(PATIENCE_S) == (130 if end == "ctrl-c" else 1)
    assert b"You: w299" in seen


@pytest.mark.slow
def test_refusal_of_the_service_ends_talk_with_its_message(
    converse: Starts, start_server: StartServer
) -> None:
    _, complained = ended(converse("--text", "--model", "none such"), 1)
    assert "/v1/talk" in complained
    full = start_server(conversations=0)
    _, complained = ended(converse("--text", "--server", full.url), 1)
    assert complained.count("VIBEVOICE_CONVERSATIONS") == 1
    assert len(complained.splitlines()) == 1


@pytest.mark.slow
def test_talk_without_audio_package_or_device_says_the_remedy(
    converse: Starts, tmp_path: Path
) -> None:
    for broken, remedy in (
        ("raise OSError('PortAudio library not found')", "libportaudio2"),
        ("raise ImportError", "pip install -e '.[microphone]'"),
    ):
        (tmp_path / "sounddevice.py").write_text(broken, "utf-8")
        _, complained = ended(converse(environment={"PYTHONPATH": str(tmp_path)}), 1)
        assert remedy in complained
    _, complained = ended(converse("--speaker", "Nobody's", environment=SOUND_DEVICES), 1)
    assert "talk --devices" in complained


class _Device:
    """A loudspeaker that asks when it is told to."""

    latency = 0.5
    PortAudioError = ValueError

    def RawOutputStream(self, callback: Any, **_: Any) -> _Device:  # noqa: N802
        self.callback = callback
        return self

    def asks(self, samples: int) -> bytes:
        out = bytearray(b"\x7f" * (2 * samples))
        self.callback(memoryview(out), samples, None, None)
        return bytes(out)


def test_cleared_loudspeaker_plays_no_more_and_reports_the_milliseconds_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = _Device()
    monkeypatch.setattr(audio_input, "import_sounddevice", lambda: device)
    loud = talk_client.Loudspeaker(None)
    loud.add("first", b"\1\1" * 24_000)
    assert device.asks(16_800) == b"\1\1" * 16_800
    assert not loud.finished()
    assert loud.clear() == ("first", 200), "half a second of it is not out yet"
    assert device.asks(10) == bytes(20)
    loud.add("second", b"\2\2" * 100)
    assert device.asks(400) == b"\2\2" * 100 + bytes(600)
    assert loud.finished()
    assert loud.clear() == ("", 0), "all of it was heard"
    loud.add("third", b"\3\3" * 50)
    assert loud.clear() == ("third", 0)


@pytest.mark.parametrize("said", ["<html>", "[1]", '"began"'])
async def test_invalid_message_of_the_server_ends_talk_with_service_unreachable(said: str) -> None:
    async def answer(socket: ServerConnection) -> None:
        await socket.send(said)

    async with (
        serve(answer, "127.0.0.1", 0) as server,
        connect_talk(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, None) as talk,
    ):
        session = talk_client.TalkSession(
            talk, None, talk_client.TalkDisplay(spoken=False), rate=RATE
        )
        with pytest.raises(errors.ServiceUnreachable, match="not this service"):
            await session.run(None, asyncio.Event())


async def test_talk_ends_after_ctrl_c_with_its_words_also_if_the_service_does_not_end_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = {"output_modalities": ["text"], "model": "none"}
    delta = "conversation.item.input_audio_transcription.delta"
    stopped = asyncio.Event()

    async def answer(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "session.updated", "session": session}))
        await socket.send(json.dumps({"type": delta, "delta": "Ever tried."}))
        async for _ in socket:  # it reads on, and says no more
            stopped.set()

    async def audio() -> AsyncGenerator[bytes, None]:
        yield bytes(3200)
        await stopped.wait()

    async with (
        serve(answer, "127.0.0.1", 0) as server,
        connect_talk(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, None) as talk,
    ):
        display = talk_client.TalkDisplay(spoken=True)
        conversation = talk_client.TalkSession(talk, None, display, rate=RATE)
        conversation.ending_s = 0.1
        with pytest.raises(errors.ServiceUnreachable, match="did not end"):
            await asyncio.wait_for(conversation.run(audio(), stopped), PATIENCE_S)
    assert capsys.readouterr().out == "You: Ever tried.\n"


async def test_what_a_microphone_heard_until_it_was_unplugged_is_recognized_before_talk_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session = {"output_modalities": ["text"], "model": "none"}
    completed = "conversation.item.input_audio_transcription.completed"

    async def answer(socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "session.updated", "session": session}))
        async for raw in socket:
            if json.loads(raw)["type"] == "session.end":
                await socket.send(json.dumps({"type": completed, "transcript": "Ever tried."}))
                await socket.send(json.dumps({"type": "session.ended"}))

    async def audio() -> AsyncGenerator[bytes, None]:
        yield bytes(3200)
        raise errors.MicrophoneUnavailable("It has gone.")

    async with (
        serve(answer, "127.0.0.1", 0) as server,
        connect_talk(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, None) as talk,
    ):
        display = talk_client.TalkDisplay(spoken=True)
        conversation = talk_client.TalkSession(talk, None, display, rate=RATE)
        with pytest.raises(errors.MicrophoneUnavailable):
            await conversation.run(audio(), asyncio.Event())
    assert capsys.readouterr().out == "You: Ever tried.\n"
