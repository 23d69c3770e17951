"""Live sessions captured: what is in the files, who can read them, and which of them stay."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_speech import pieces, sound, talk
from service_process import PATIENCE_S, until

from bench.capture_reader import CaptureReader
from sidecar import errors
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity
from sidecar.config.settings import load_settings
from sidecar.interfaces.live_events import Final
from sidecar.interfaces.live_options import LiveOptions, SampleEncoding
from sidecar.live.sessions import capture_writer
from sidecar.live.sessions.capture_files import (
    EVENTS,
    SOUND,
    CapturedEntry,
    CaptureFileSet,
    CaptureInfo,
    CaptureLimits,
    capture_stem,
    captures_to_delete,
    list_captures,
)
from sidecar.live.sessions.capture_writer import CaptureWriter, PendingCapture
from sidecar.live.sessions.session import Session
from sidecar.server.app import create_service
from sidecar.service.facade import Service

KEY = "0123456789abcdef" * 4
Capture = Callable[..., Awaitable[Service]]


def test_a_capture_is_named_by_local_time_and_what_a_file_may_be_called() -> None:
    at = time.mktime((2026, 11, 21, 10, 46, 41, 0, 0, -1))
    for session, name in (
        ("talk-7_b", "talk-7_b"),
        ("../../etc/pass wd", "etc_pass_wd"),
        ("ümläut", "ml_ut"),
        ("_" * 5, "session"),
        ("", "session"),
        ("x" * 300, "x" * 80),
    ):
        assert capture_stem(session, at) == f"20261121T104641_{name}"


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 50)), max_size=12),
    st.builds(CaptureLimits, st.integers(0, 200), st.integers(0, 6), st.floats(0, 500)),
)
def test_the_oldest_go_until_what_is_left_is_within_all_limits(
    found: list[tuple[float, int]], limits: CaptureLimits
) -> None:
    stored = [CaptureInfo(str(number), at, size) for number, (at, size) in enumerate(found)]
    gone = captures_to_delete(stored, 1000.0, limits)
    left = [one for one in stored if one.stem not in gone]
    assert not limits.count or len(left) <= limits.count
    assert not limits.size or sum(one.size for one in left) <= limits.size
    assert not limits.age_s or all(1000.0 - one.written <= limits.age_s for one in left)
    if gone and left:
        by_stem = {one.stem: one for one in stored}
        assert max(by_stem[stem].written for stem in gone) <= min(one.written for one in left)
    assert limits != CaptureLimits() or not gone


@pytest.fixture
async def capturing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Capture]:
    monkeypatch.setattr(
        capture_writer, "CLOSE_TIMEOUT_S", PATIENCE_S
    )  # with a disk that others keep busy
    opened: list[Service] = []

    async def start(**settings: Any) -> Service:
        values = {
            "engine": "scripted",
            "data_dir": tmp_path,
            "live_grace": 0.0,
            "capture": True,
            "journal_key": KEY,
            **settings,
        }
        service = create_service(load_settings(**values))
        await service.open()
        opened.append(service)
        return service

    yield start
    for service in opened:
        await service.close()


async def talked(
    service: Service, said: bytes, name: str = "talk", rate: int = 16_000, **options: Any
) -> tuple[Session, list[Any]]:
    """A session with that sound, to its end, and what it told."""
    session = service.live.open(ANONYMOUS, LiveOptions(**options), name)
    for piece in pieces(said):
        await session.send(piece, rate=rate)
    session.finish()
    events = [one.event async for one in session.events()]
    service.live.end(session)
    return session, events


def stems(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(SOUND) for path in folder.glob(f"*{SOUND}"))


async def test_a_capture_has_the_sound_and_all_that_passed_and_only_who_has_the_key_reads_it(
    capturing: Capture, tmp_path: Path
) -> None:
    said = talk(0.3, 0.1)
    service = await capturing()
    session, told = await talked(service, said, prompt="Xylophon", diarize=False)
    assert session.greeting == {"captured": True}
    words = {
        word for event in told if isinstance(event, Final) for word in event.segment.text.split()
    }
    await service.close()
    folder = tmp_path / "captures"
    (stem,) = stems(folder)
    assert re.fullmatch(r"\d{8}T\d{6}_talk", stem)
    assert folder.stat().st_mode & 0o77 == 0
    for path in folder.iterdir():
        raw = path.read_bytes()
        assert path.stat().st_mode & 0o77 == 0
        assert not any(word.encode() in raw for word in (*words, "Xylophon", "RIFF"))
    captured = CaptureReader(folder / f"{stem}{EVENTS}", KEY).read()
    assert b"".join(CaptureReader(folder / f"{stem}{SOUND}", KEY).sound()) == said
    assert [event for event in captured.told if isinstance(event, Final)] == [
        event for event in told if isinstance(event, Final)
    ]
    assert (captured.session, captured.rate, captured.encoding) == (
        "talk",
        16_000,
        SampleEncoding.PCM16,
    )
    assert captured.options == session.options
    assert (captured.whole, captured.finished, captured.left_out) == (True, True, 0)
    assert sum(one.sound for one in captured.sent) == len(said)
    with pytest.raises(errors.CaptureUnreadable) as caught:
        CaptureReader(folder / f"{stem}{EVENTS}", KEY[::-1])
    assert "another key" in caught.value.detail
    plain, lines = CaptureReader(folder / f"{stem}{EVENTS}", KEY).save(tmp_path / "plain")
    with wave.open(str(plain)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.readframes(1 << 24) == said
    assert [json.loads(line)["t"] for line in lines.read_text("utf-8").splitlines()]


async def test_a_capture_whose_service_died_is_read_as_far_as_it_is_there(
    capturing: Capture, tmp_path: Path
) -> None:
    service = await capturing()
    await talked(service, talk(0.3, 0.1, 0.2, 0.3))
    await service.close()
    (stem,) = stems(folder := tmp_path / "captures")
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / f"{stem}{EVENTS}").rename(folder / f"other{EVENTS}")
    with pytest.raises(errors.CaptureUnreadable):
        CaptureReader(folder / f"{stem}{SOUND}", KEY)
    (folder / f"other{EVENTS}").rename(folder / f"{stem}{EVENTS}")
    reader = CaptureReader(folder / f"{stem}{SOUND}", KEY)
    assert 0 < len(b"".join(reader.sound())) < len(talk(0.3, 0.1, 0.2, 0.3))
    assert not reader.read().whole


async def test_a_disk_that_is_slow_costs_the_oldest_sound_and_says_so(
    capturing: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    let, write = threading.Event(), CaptureFileSet.write

    def slowly(self: CaptureFileSet, *given: Any) -> None:
        let.wait(PATIENCE_S)
        write(self, *given)

    monkeypatch.setattr(CaptureFileSet, "write", slowly)
    monkeypatch.setattr(capture_writer, "MAX_QUEUED_CHUNKS", 20)
    service = await capturing()
    said = sound((6.0, 0.0))
    await talked(service, said)
    let.set()
    await service.close()
    (stem,) = stems(folder := tmp_path / "captures")
    reader = CaptureReader(folder / f"{stem}{SOUND}", KEY)
    captured = reader.read()
    in_hand, waiting = 20, 20
    assert captured.left_out >= len(pieces(said)) - in_hand - waiting > 0
    assert captured.finished
    assert sum(one.sound for one in captured.sent) == len(said)
    assert len(b"".join(reader.sound())) == len(said)
    assert "chunks of audio" in caplog.text


async def test_captures_go_by_their_limits_and_what_is_empty_leaves_none(
    capturing: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_writer, "MAX_CAPTURES", 2)
    service = await capturing()
    folder = tmp_path / "captures"
    for number in range(3):
        await talked(service, sound((0.2, 0.0)), f"talk{number}")
        await until(lambda n=number: any(f"talk{n}" in one for one in stems(folder)), "written")
        await asyncio.sleep(0.02)  # so that one is older
    await talked(service, b"", "silent")
    await service.close()
    assert [stem.partition("_")[2] for stem in stems(folder)] == ["talk1", "talk2"]
    assert len(list(folder.iterdir())) == 4


async def test_captures_of_an_owner_who_has_all_deleted_go_and_those_of_others_stay(
    capturing: Capture, tmp_path: Path
) -> None:
    other = Identity("other", AuthMethod.TOKEN)
    service = await capturing()
    for name in ("one", "two"):
        await talked(service, sound((0.2, 0.0)), name)
    goes_on = service.live.open(ANONYMOUS, LiveOptions(), "goes-on")
    theirs = service.live.open(other, LiveOptions(), "theirs")
    for session in (goes_on, theirs):
        await session.send(sound((0.2, 0.0)), rate=16_000)
    service.live.end(theirs)
    assert (await service.erase(ANONYMOUS)).live_sessions == 1
    left = [stem.partition("_")[2] for stem in stems(tmp_path / "captures")]
    assert left == ["goes-on", "theirs"]
    service.live.end(goes_on)
    await service.erase(ANONYMOUS)
    (path,) = (tmp_path / "captures").glob(f"*{SOUND}")
    assert CaptureReader(path, KEY).lines()[0]["owner"] == other.owner
    assert len(list((tmp_path / "captures").iterdir())) == 2


async def test_what_a_deletion_left_half_done_is_deleted_by_the_next(
    capturing: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sidecar.live.sessions.capture_writer.capture_stem", lambda session, at: "now_same"
    )
    service, folder = await capturing(), tmp_path / "captures"
    await talked(service, sound((0.2, 0.0)), "same")
    await until(lambda: stems(folder), "written")
    (folder / f"now_same{SOUND}").unlink()  # the service died between the two files
    await talked(service, sound((0.2, 0.0)), "same")
    await until(lambda: stems(folder) == ["now_same-2"], "written beside what is left")
    await service.erase(ANONYMOUS)
    assert list(folder.iterdir()) == []


def test_a_deletion_comes_although_others_always_have_something_to_be_written(
    tmp_path: Path,
) -> None:
    writer = CaptureWriter(tmp_path, KEY, CaptureLimits(), 100)
    entry, stopped = PendingCapture("talks", CapturedEntry(0.0, dict)), threading.Event()

    def more() -> Mapping[str, Any]:
        if not stopped.is_set():  # it waits to be written before this one is
            writer.put(entry, CapturedEntry(0.0, more))
        return {}

    writer.put(entry, CapturedEntry(0.0, more))
    try:
        writer.forget("somebody").result(timeout=PATIENCE_S)
    finally:
        stopped.set()
        writer.close(PATIENCE_S)


async def test_two_sessions_of_one_name_have_files_of_their_own(
    capturing: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sidecar.live.sessions.capture_writer.capture_stem", lambda session, at: "now_same"
    )
    service = await capturing()
    await talked(service, sound((0.2, 0.0)), "same")
    await talked(service, sound((0.4, 0.0)), "same")
    await service.close()
    assert len(list_captures(tmp_path / "captures")) == 2


async def test_without_the_setting_nothing_is_written_and_nobody_watches(
    capturing: Capture, tmp_path: Path
) -> None:
    service = await capturing(capture=False)
    session, _ = await talked(service, sound((0.2, 0.0)))
    assert (list(session.observers), dict(session.greeting)) == ([], {})
    assert not (tmp_path / "captures").exists()


def test_without_a_key_the_service_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIBEVOICE_JOURNAL_KEY", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "keyring", None)
    with pytest.raises(errors.SettingsInvalid) as caught:
        create_service(load_settings(engine="scripted", data_dir=tmp_path, capture=True))
    assert "key" in caught.value.detail
