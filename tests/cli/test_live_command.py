"""`vibevoice-asr live` as people run it: a real process, real sound, a real terminal."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_terminal import (
    NOHUP,
    SOUND_DEVICES,
    ended,
    interrupt,
    interrupt_until_ended,
    say,
    start_command,
)
from not_tested import missing
from recordings import Studio, wav
from scripted_speech import recorded, talk
from service_clock import AHEAD_S, clocked_command, put_ahead
from service_process import (
    PATIENCE_S,
    Server,
    StartServer,
    new_file,
    shown_on,
    shown_until,
    wait_until,
)
from virtual_time import virtual_time

from sidecar.cli.audio_input import PIECE_S
from sidecar.cli.live import CUT_OFF, line_of
from sidecar.cli.output import handle_interrupts
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.live.sessions.session_registry import SERVICE_ENDS_NOTICE
from sidecar.transcripts.transcript import Segment
from sidecar.workers.channel_transcription import CHANNEL_SINGLE

if sys.platform != "win32":
    import pty

Starts = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def live(tmp_path: Path) -> Starts:
    """Starts the command with some of its options."""
    return partial(start_command, tmp_path, "live")


def test_live_with_server_prints_events_and_a_summary_and_keep_names_the_kept_job(
    live: Starts, server: Server, studio: Studio
) -> None:
    said, complained = ended(
        live(studio.voice, "--pace", 0, "--format", "jsonl", "--keep", "--server", server.url)
    )
    events = [json.loads(line) for line in said.splitlines()]
    heard = [one for one in events if one.get("code") != "engine_loading"]
    assert heard[0]["type"] == "speech_started"
    assert events[-1]["type"] == "summary"
    finals = [one["segment"] for one in events if one["type"] == "final"]
    assert events[-1]["transcript"]["segments"] == finals
    assert finals
    job = events[-1]["job"]
    assert f"It is kept as the job {job}." in complained
    assert server.job(job)["name"] == studio.voice.name
    assert server.client.delete(f"/v1/jobs/{job}").status_code == 204


@pytest.mark.posix("names of any bytes")
def test_kept_session_of_a_file_whose_name_is_not_valid_unicode_has_a_readable_name(
    live: Starts, server: Server, studio: Studio, tmp_path: Path
) -> None:
    path = new_file(tmp_path / "Gr\udcfcn.wav", studio.voice.read_bytes())
    _, complained = ended(live(path, "--pace", 0, "--keep", "--server", server.url))
    job = complained.rstrip(".\n").rpartition(" ")[2]
    assert server.job(job)["name"] == "Gr?n.wav"
    assert server.client.delete(f"/v1/jobs/{job}").status_code == 204


def test_live_with_keep_and_without_server_is_refused(live: Starts, studio: Studio) -> None:
    _, complained = ended(live(studio.voice, "--keep"), 1)
    assert "--server" in complained


def test_live_without_server_writes_subtitles_by_the_embedded_engine(
    live: Starts, studio: Studio, tmp_path: Path
) -> None:
    path = tmp_path / "talk.srt"
    embedded = {"VIBEVOICE_ENGINE": "moonshine"}
    said, complained = ended(
        live(studio.voice, "--format", "srt", "-o", path, environment=embedded)
    )
    assert (said, complained) == ("", "")
    assert "-->" in path.read_text("utf-8")
    assert "failed" in path.read_text("utf-8").lower()


def samples(loud: float) -> np.ndarray:
    """A turn of this loudness, 16 bit."""
    return np.frombuffer(recorded(talk(loud)), "<i2")


def test_separate_channels_of_a_file_or_pipe_are_two_named_people_with_and_without_server(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    left, right = (samples(loud) for loud in (0.3, 0.2))
    stereo = np.stack([left, right], axis=1).tobytes()
    path = new_file(tmp_path / "call.wav", wav(stereo, channels=2))
    words = ("--pace", 0, "--channels", "separate", "--channel-names", "Agent, Caller")
    served = ("--server", server.url, "--format", "jsonl")
    said, complained = ended(live(path, *words, *served))
    assert complained == ""
    finals = [one for one in map(json.loads, said.splitlines()) if one["type"] == "final"]
    assert {one["channel"]: one["segment"]["name"] for one in finals} == {0: "Agent", 1: "Caller"}
    alone = {"VIBEVOICE_ENGINE": "scripted"}
    shown, complained = ended(live(path, *words, environment=alone))
    assert complained == ""
    texts = [f"{one['segment']['name']}: {one['segment']['text']}" for one in finals]
    assert sorted(line.split("] ")[1] for line in shown.splitlines()) == sorted(texts)
    piped, _ = ended(live("-", *words, environment=alone, stdin=path.open("rb")))
    assert {"Agent", "Caller"} <= {word.strip(":") for word in piped.split()}


def test_separate_channels_of_a_file_with_one_or_three_are_a_warning(
    live: Starts, tmp_path: Path
) -> None:
    alone = {"VIBEVOICE_ENGINE": "scripted"}
    mono = new_file(tmp_path / "mono.wav", wav(recorded(talk(0.3))))
    _, complained = ended(live(mono, "--pace", 0, "--channels", "separate", environment=alone))
    assert complained == f"vibevoice-asr: {CHANNEL_SINGLE.message}\n"
    surround = np.stack([samples(loud) for loud in (0.3, 0.2, 0.2)], axis=1).tobytes()
    three = new_file(tmp_path / "three.wav", wav(surround, channels=3))
    words = ("--pace", 0, "--channels", "separate", "--channel-names", "Agent, Caller")
    _, complained = ended(live(three, *words, environment=alone))
    assert complained.startswith("vibevoice-asr: The recording has 3 channels: the first is sent")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason=missing("espeak-ng", "espeak-ng"))
def test_hotwords_of_the_command_are_in_its_text(live: Starts, tmp_path: Path) -> None:
    spoken, text = tmp_path / "spoken.wav", "The ship sailed from Valparaiso to Honolulu."
    subprocess.run(["espeak-ng", "-v", "en-gb", "-s", "150", "-w", spoken, text], check=True)
    names = ("--hotwords", "Valparaiso, Honolulu", "--pace", 0)
    said, _ = ended(live(spoken, *names, environment={"VIBEVOICE_ENGINE": "moonshine"}))
    assert "Valparaiso" in said
    assert "Honolulu" in said


def heard_s(server: Server) -> float:
    """Seconds of live audio that the service has received, of all its sessions."""
    counter = r"(?m)^vibevoice_live_audio_seconds_total(?:\{.*\})? (\S+)$"
    return sum(map(float, re.findall(counter, server.client.get("/metrics").text)))


def speak(process: "subprocess.Popen[bytes]", audio: bytes, server: Server) -> None:
    """Pipe audio into the command, until the service has received it but for the last piece."""
    before_s, spoken_s = heard_s(server), len(audio) / 2 / LIVE_RATE
    say(process, audio)
    wait_until(lambda: heard_s(server) > before_s + spoken_s - 2 * PIECE_S, "it is received")


def test_ctrl_c_during_a_pipe_exits_130_and_prints_finals_and_the_unfinished_turn(
    live: Starts, server: Server
) -> None:
    process = live("-", "--server", server.url)
    assert process.stdout is not None
    speak(process, talk(0.3, 0.2)[:-12_800] + b"\0", server)  # the last turn has not ended
    assert "w299" in process.stdout.readline().decode()
    interrupt(process)
    assert process.wait(PATIENCE_S) == 130, "also while the pipe is open"
    rest, complained = ended(process, 130)
    assert "w200" in rest or "w199" in rest
    assert "Traceback" not in complained


@pytest.mark.posix("signals")
def test_words_that_a_pipe_has_at_ctrl_c_are_in_the_transcript(
    live: Starts, server: Server
) -> None:
    process = live("-", "--server", server.url)
    assert process.stdout is not None
    speak(process, talk(0.3) + bytes(32_000), server)
    assert "w299" in process.stdout.readline().decode()
    process.send_signal(signal.SIGSTOP)
    say(process, talk(0.2)[:60_000])  # less than a pipe holds
    interrupt(process)
    process.send_signal(signal.SIGCONT)
    said, _ = ended(process, 130)
    assert re.search("w(199|200) w(199|200)", said)


@pytest.mark.posix("signals")
def test_ctrl_c_ends_live_while_it_waits_for_a_service_that_does_not_answer(
    live: Starts, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server()
    server.process.send_signal(signal.SIGSTOP)
    try:
        process = live("-", "-o", tmp_path / "said", "--server", server.url)
        wait_until((tmp_path / "said").exists, "it connects")
        interrupt(process)
        assert process.wait(PATIENCE_S) == 130
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert not (tmp_path / "said").exists()


@pytest.mark.posix("signals")
@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("SIGHUP", marks=NOHUP)])
def test_live_writes_its_finals_to_the_file_and_exits_130_on_sigterm_or_sighup(
    how: str, live: Starts, server: Server, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    path = tmp_path / "talk.srt"
    to = ("--format", "srt", "-o", path)
    process = live("-", *to, "--server", server.url, stdout=theirs, stderr=theirs)
    os.close(theirs)
    say(process, talk(0.3, 0.2))
    shown_until(ours, b"w299")
    process.send_signal(getattr(signal, how))
    assert process.wait(PATIENCE_S) == 130
    os.close(ours)
    assert "w299" in path.read_text("utf-8")


@pytest.mark.posix("terminals")
@pytest.mark.parametrize("fmt", ["text", "jsonl"])
def test_live_with_its_output_in_a_file_and_its_messages_on_a_terminal_writes_both(
    fmt: str, live: Starts, server: Server
) -> None:
    ours, theirs = pty.openpty()
    process = live("-", "--format", fmt, "--server", server.url, stderr=theirs)
    os.close(theirs)
    said, _ = process.communicate(talk(0.3, 0.2), PATIENCE_S)
    os.close(ours)
    assert "w299" in said.decode()


@pytest.mark.posix("signals")
@pytest.mark.parametrize("to", ["stdout", "file"])
def test_second_ctrl_c_writes_the_words_that_were_shown(
    to: str, live: Starts, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server()
    ours, theirs = pty.openpty()
    path = tmp_path / "talk.srt"
    output = ("-o", path) if to == "file" else ()
    process = live("-", "--format", "srt", *output, "--server", server.url, stderr=theirs)
    os.close(theirs)
    say(process, talk(0.3, 0.2))
    shown_until(ours, b"w299")
    server.process.send_signal(signal.SIGSTOP)  # it finalises nothing
    try:
        interrupt_until_ended(process)
    finally:
        server.process.send_signal(signal.SIGCONT)
    os.close(ours)
    assert process.returncode == 130
    assert process.stdout is not None
    written = process.stdout.read().decode() if to == "stdout" else path.read_text("utf-8")
    assert "w299" in written
    assert "-->" in written, "in the format that was asked for"


@pytest.mark.posix("terminals")
def test_live_goes_on_where_its_terminal_is_closed_and_writes_all_words_to_its_file(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    path = tmp_path / "talk.srt"
    process = live("-", "--format", "srt", "-o", path, "--server", server.url, stderr=theirs)
    os.close(theirs)
    say(process, talk(0.3))
    shown_until(ours, b"w299")
    os.close(ours)  # without SIGHUP, as of a command that is disowned
    process.communicate(talk(0.2), PATIENCE_S)
    assert process.returncode == 0
    assert "-->" in path.read_text("utf-8")
    assert {"w299", "w200"} <= set(path.read_text("utf-8").replace("w199", "w200").split())


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """SIGHUP is not ignored; `nohup` ignores it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.posix("signals")
@virtual_time
@pytest.mark.usefixtures("heeded_hangup")
async def test_signals_in_quick_succession_end_gracefully_once_and_a_later_one_cancels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: False)  # not the tests' own
    ended = asyncio.Event()

    async def hang() -> None:
        with handle_interrupts(ended):
            await asyncio.Event().wait()

    for later in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        ended.clear()
        task = asyncio.create_task(hang())
        await asyncio.sleep(0.0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
            await asyncio.sleep(0.1)
            assert ended.is_set()
            assert not task.done(), number
        await asyncio.sleep(2.0)
        signal.raise_signal(later)
        await asyncio.wait({task}, timeout=1.0)
        assert task.cancelled(), later.name


@pytest.mark.parametrize(
    "name",
    ["dictation.rec", pytest.param("link.txt", marks=pytest.mark.posix("symbolic links"))],
)
def test_live_output_with_the_path_of_its_recording_is_refused_however_that_is_named(
    name: str, live: Starts, tmp_path: Path
) -> None:
    content = wav(recorded(talk(0.3)))
    recording = new_file(tmp_path / "dictation.rec", content)
    if name == "link.txt":
        (tmp_path / name).symlink_to(recording)
    alone = {"VIBEVOICE_ENGINE": "scripted"}
    process = live(recording, "--pace", 0, "-o", tmp_path / name, environment=alone)
    assert "is the name of a recording" in ended(process, 78)[1]
    assert recording.read_bytes() == content


def test_live_output_that_cannot_be_written_is_an_error_before_the_session_begins(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "none" / "talk.srt"
    process = live("-", "-o", path, "--server", server.url)  # it reads no audio at all
    _, complained = ended(process, 1)
    assert complained == f"vibevoice-asr: {path}: cannot be written: No such file or directory.\n"


def test_live_output_with_the_name_of_a_file_is_written_beside_it(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    theirs = new_file(tmp_path / "talk.txt", "Theirs.")
    recording = new_file(tmp_path / "talk.wav", wav(recorded(talk(0.3))))
    to = ("--pace", 0, "-o", theirs, "--server", server.url)
    for number in (2, 3):
        beside = tmp_path / f"talk-{number}.txt"
        _, complained = ended(live(recording, *to))
        assert f"{theirs} exists and is kept; the output is {beside.name}." in complained
        assert "w299" in beside.read_text("utf-8")
    assert theirs.read_text("utf-8") == "Theirs."


def test_live_output_that_somebody_corrected_is_kept_and_the_transcript_is_written_beside_it(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "talk.txt"
    process = live("-", "-o", path, "--server", server.url)
    say(process, talk(0.3, 0.2))
    wait_until(lambda: path.exists() and "w299" in path.read_text("utf-8"), "it is written")
    path.write_text("Nell said it.\n", "utf-8")
    _, complained = ended(process)
    assert "the output is talk-2.txt" in complained
    assert path.read_text("utf-8").startswith("Nell said it.\n")
    assert "w299" in (tmp_path / "talk-2.txt").read_text("utf-8")


def test_live_output_of_a_session_that_fails_before_a_word_leaves_no_file(
    live: Starts, tmp_path: Path
) -> None:
    process = live("-", "-o", tmp_path / "said", "--server", "http://127.0.0.1:9")
    ended(process, 1)
    assert not (tmp_path / "said").exists()


@pytest.mark.parametrize("fmt", ["text", "srt", "jsonl"])
def test_live_output_has_the_finals_so_far_if_the_command_is_killed(
    fmt: str, live: Starts, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "said"
    process = live("-", "--format", fmt, "-o", path, "--server", server.url)
    say(process, talk(0.3, 0.2))
    wait_until(lambda: path.exists() and "w299" in path.read_text("utf-8"), "it is written")
    process.kill()
    process.wait(PATIENCE_S)
    assert "w299" in path.read_text("utf-8")


def test_live_prints_its_words_and_exits_1_if_the_output_folder_is_gone_at_the_end(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "soon gone" / "talk.srt"
    path.parent.mkdir()
    process = live("-", "--format", "srt", "-o", path, "--server", server.url)
    speak(process, talk(0.3, 0.2), server)
    shutil.rmtree(path.parent)
    said, complained = ended(process, 1)
    assert "w299" in said
    assert str(path) in complained


@pytest.mark.parametrize("served", [True, False], ids=["served", "alone"])
def test_live_whose_words_were_not_recognized_in_time_says_from_where_on_and_exits_1(
    served: bool, live: Starts, start_server: StartServer, tmp_path: Path
) -> None:
    path = new_file(tmp_path / "talk.wav", wav(recorded(talk(0.3))))
    late = {"live_timeout": 0.2, "scripted_hear": 2}  # seconds
    to = ("--server", start_server(**late).url) if served else ()
    alone = {"engine": "scripted", **late}
    environment = {f"VIBEVOICE_{name.upper()}": str(value) for name, value in alone.items()}
    options = ("--pace", 0, "--format", "json", *to)
    said, complained = ended(live(path, *options, environment=environment), 1)
    about = json.loads(said)["metadata"]
    assert [one["code"] for one in about["warnings"]] == ["recognition_failed"]
    assert about["recognized_s"] < about["duration"]
    missing = f"vibevoice-asr: Words may be missing from {about['recognized_s']:.1f} s on."
    assert complained.splitlines().count(missing) == 1


@pytest.mark.slow
@pytest.mark.parametrize("why", ["shutdown", "longest"])
def test_session_ended_by_shutdown_or_longest_duration_keeps_text_and_is_an_error_with_reason(
    why: str, live: Starts, start_server: StartServer, tmp_path: Path
) -> None:
    ahead = {"live_longest": AHEAD_S, "command": clocked_command(tmp_path), "fresh": True}
    server = start_server(**(ahead if why == "longest" else {"shutdown_grace": 5}))
    written = tmp_path / "talk.srt"
    path = new_file(tmp_path / "talk.wav", wav(recorded(talk(*[0.3, 0.2] * 40))))
    to = ("--format", "srt", "-o", written) if why == "longest" else ()
    process = live(path, "--pace", 8, "--keep", *to, "--server", server.url)
    if why == "shutdown":
        assert process.stdout is not None
        assert "w299" in process.stdout.readline().decode()
        server.process.terminate()
    else:
        final = re.compile(r"^vibevoice_live_finals_total\{.*\} [1-9]", re.MULTILINE)
        wait_until(lambda: final.search(server.client.get("/metrics").text), "a turn is over")
        put_ahead(server)
    _, complained = ended(process, 1)
    assert why == "shutdown" or "w299" in written.read_text("utf-8"), "its finals"
    said = SERVICE_ENDS_NOTICE.message if why == "shutdown" else CUT_OFF
    assert f"vibevoice-asr: {said}" in complained.splitlines()


@pytest.mark.posix("a terminal of POSIX")
def test_live_on_a_terminal_shows_finals_one_changing_line_and_the_loudness(
    live: Starts, server: Server
) -> None:
    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": ""}
    process = live("-", "--server", server.url, stdout=theirs, stderr=theirs, environment=terminal)
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(talk(0.3, 0.2))
    process.stdin.close()
    seen = shown_on(ours)
    assert process.wait(PATIENCE_S) == 0
    text = seen.decode()
    assert "\x1b[2K" in text, "a line that changes"
    assert "█" in text, "how loud it is"
    assert "w299 w299" in text
    assert "of audio, " in text


@pytest.mark.slow
def test_named_microphone_is_listed_and_transcribed_until_ctrl_c(
    live: Starts, server: Server
) -> None:
    listed, _ = ended(live("--devices", environment=SOUND_DEVICES))
    assert listed == "* 0: Desk (16000 Hz, mono)\n"
    process = live("--device", "Desk", "--server", server.url, environment=SOUND_DEVICES)
    assert process.stdout is not None
    assert b"w299" in process.stdout.readline()
    interrupt(process)
    ended(process)


def test_words_before_a_microphone_was_unplugged_are_written_and_the_exit_code_is_1(
    live: Starts, server: Server, tmp_path: Path
) -> None:
    limits = json.dumps({"microphone_gone": 0.5})
    environment = {"UNPLUGGED": "1", "VIBEVOICE_TEST_LIMITS": limits, **SOUND_DEVICES}
    path = tmp_path / "said.txt"
    said, complained = ended(live("-o", path, "--server", server.url, environment=environment), 1)
    assert said == ""
    assert "w299" in path.read_text("utf-8")
    assert "The microphone 'Desk' has gone" in complained


@pytest.mark.slow
def test_list_of_devices_without_sound_package_is_refused_with_install_command(
    live: Starts, tmp_path: Path
) -> None:
    (tmp_path / "sounddevice.py").write_text("raise ImportError", "utf-8")
    _, complained = ended(live("--devices", environment={"PYTHONPATH": str(tmp_path)}), 1)
    assert "pip install -e '.[microphone]'" in complained


def test_separate_channels_of_a_microphone_with_one_are_refused_with_a_remedy(live: Starts) -> None:
    said, complained = ended(live("--channels", "separate", environment=SOUND_DEVICES), 1)
    assert (said, len(complained.splitlines())) == ("", 1), complained
    assert "The microphone 'Desk' has one channel" in complained
    assert "Omit '--channels separate'" in complained
    assert "PaErrorCode" not in complained


def test_live_line_has_time_and_speaker_or_placeholder_and_without_labels_text_only() -> None:
    plain = Segment(62.5, 64.0, "Ever tried.", None)
    assert line_of(plain, labels=False) == "Ever tried.\n"
    lines = [line_of(Segment(62.5, 64.0, "Ever tried.", speaker)) for speaker in (1, None)]
    assert lines == [
        "[00:01:02.5] Speaker_1: Ever tried.\n",
        "[00:01:02.5] Speaker_?: Ever tried.\n",
    ]
