"""Captures over every live wire: each client is told, and what was told is told again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc_client import CREATE, Client, chunks_of
from scripted_speech import pieces, talk
from service_process import PATIENCE_S, Server, wait_until
from websockets.sync.client import ClientConnection, connect

from bench import replay
from bench.capture_reader import CaptureReader
from bench.replay import likeness
from sidecar import errors
from sidecar.cli.backends import ServiceTarget
from sidecar.interfaces.live_events import Final, LiveEvent, Partial
from sidecar.live.sessions.capture_files import EVENTS, SOUND
from sidecar.protocols.grpc_stt.stt_pb2 import SessionRequest, SessionResponse
from sidecar.transcripts.transcript import Segment

KEY = "fedcba9876543210" * 4
SAID = talk(0.3, 0.1, 0.2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("captures")
    settings = {"capture": "true", "data_dir": home, "journal_key": KEY}
    with Server(home, grpc_port=0, **settings) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIBEVOICE_JOURNAL_KEY", KEY)
    monkeypatch.setenv("VIBEVOICE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("VIBEVOICE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VIBEVOICE_ENGINE", "scripted")


def socket(server: Server, path: str) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None)


def heard(live: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(live.recv(PATIENCE_S)))


def captured(server: Server, name: str) -> Path:
    """The capture of a session, once that is written to its end."""

    def found() -> Path | None:
        for path in (server.home / "captures").glob(f"*_{name}{EVENTS}"):
            with contextlib.suppress(errors.CaptureUnreadable):  # it has only just been made
                if CaptureReader(path, KEY).read().whole:
                    return path
        return None

    path: Path = wait_until(found, PATIENCE_S, "the capture is there")
    return path


def test_every_wire_greets_with_it(server: Server) -> None:
    with socket(server, "/v1/live") as live:
        live.send(json.dumps({"type": "begin"}))
        assert heard(live)["captured"] is True
    with socket(server, "/api/asr-streaming") as live:
        said = heard(live)
        assert (said["type"], said["payload"]["captured"]) == ("session.created", True)
    with socket(server, "/v1/realtime?intent=transcription") as live:
        said = heard(live)
        assert (said["type"], said["session"]["captured"]) == ("session.created", True)
    with Client(server.health()["grpc_port"]) as client:
        make = client.channel.unary_unary(
            CREATE, SessionRequest.SerializeToString, SessionResponse.FromString
        )
        _, call = make.with_call(SessionRequest(session_id="greeted"), timeout=PATIENCE_S)
        assert ("captured", "true") in call.initial_metadata()
        stream = client.open(
            (one.SerializeToString() for one in chunks_of("greeted", b"")), "greeted"
        )
        assert ("captured", "true") in stream.initial_metadata()
        list(stream)


def test_a_capture_of_a_grpc_session_is_told_the_same_again(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(server.health()["grpc_port"]) as client:
        client.create("../gr pc")
        finals = client.say("../gr pc", SAID).finals
    path = captured(server, "gr_pc")
    url = f"http://127.0.0.1:{server.port}"
    for where in (
        ServiceTarget(url),
        ServiceTarget(),
    ):  # a service elsewhere, and one of the command's own
        assert replay.run(path, where, pace=0) == 0
        out = capsys.readouterr().out.splitlines()
        assert [line.split("  ")[-1] for line in out[:-1]] == [one.text for one in finals]
        assert out[-1].startswith(f"{len(finals)} of {len(finals)} finals the same; partials: ")


def test_what_is_told_otherwise_is_shown_and_the_exit_code_says_so(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket(server, "/v1/live") as live:
        live.send(json.dumps({"type": "begin", "session": "cut", "diarize": False}))
        for piece in pieces(SAID):
            live.send(piece)
        while heard(live)["type"] != "turn_ended":
            pass
        live.close(1000)  # it says that it needs the session no more, and nothing of an end
    path = captured(server, "cut")
    known = CaptureReader.read
    told = [event for event in known(CaptureReader(path, KEY)).told if isinstance(event, Final)]
    began = time.monotonic()
    assert replay.run(path, ServiceTarget(f"http://127.0.0.1:{server.port}"), pace=8) == 0
    assert time.monotonic() - began >= len(SAID) / 32_000 / 16  # it keeps its pace, or half
    assert f"{len(told)} of {len(told)} finals" in capsys.readouterr().out

    def altered(reader: CaptureReader) -> Any:
        found = known(reader)
        wrong = [final(0.0, 1.0, "never said")]
        return type(found)(**{**vars_of(found), "told": [*wrong, *found.told]})

    monkeypatch.setattr(CaptureReader, "read", altered)
    assert replay.run(path, ServiceTarget(f"http://127.0.0.1:{server.port}"), pace=0) == 1
    assert "- 0.00–1.00  never said" in capsys.readouterr().out


def vars_of(found: Any) -> dict[str, Any]:
    return {name: getattr(found, name) for name in type(found).__slots__}


def final(start: float, end: float, text: str) -> Final:
    return Final(0, 0, Segment(start, end, text))


def test_finals_differ_by_text_and_time_and_partials_do_not_count() -> None:
    then: list[LiveEvent] = [Partial(0, 0, 0, 1, "a"), final(0, 1, "a"), final(1, 2, "b")]
    same = likeness(then, [final(0.05, 1, "a"), final(1, 2, "b")], 0.1)
    assert (same.alike, same.partials) == (True, (1, 0))
    later = likeness(then, [final(0, 1, "a"), final(1.5, 2, "b")], 0.1)
    assert not later.alike
    assert list(later.lines) == ["  0.00–1.00  a", "~ 1.00–2.00 → 1.50–2.00  b"]
    more = [final(0, 1, "a"), final(1, 2, "b"), final(2, 3, "c")]
    assert not likeness(then, more, 0.1).alike
    cut = likeness(then, more, 0.1, finished=False)
    assert cut.alike
    assert cut.lines[-1] == "> 2.00–3.00  c"
    assert not likeness(more, then, 0.1, finished=False).alike


def test_a_file_that_is_no_capture_and_another_key_are_said(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"x{SOUND}").write_bytes(b"RIFF" * 100)
    (tmp_path / f"x{EVENTS}").write_bytes(b"RIFF" * 100)
    (tmp_path / "key").write_text(KEY[::-1])
    (tmp_path / "key").chmod(0o600)
    assert replay.run(tmp_path / f"x{SOUND}", ServiceTarget()) == 1
    assert replay.run(tmp_path / "nowhere", ServiceTarget()) == 1
    assert replay.run(captured(server, "cut"), ServiceTarget(), key_file=tmp_path / "key") == 1
    said = capsys.readouterr().err
    assert "another key" in said
    assert "is not a capture" in said
    assert "cannot be read" in said
