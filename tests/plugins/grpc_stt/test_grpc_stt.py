"""Live audio over gRPC, as a client that was made from its proto meets it."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_client import Client, Ended, chunks_of, ended, sound
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from module_services import service_of_module
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    Server,
    free_port,
    popen,
    run_command,
    wait_until,
)

from bench.queue_clients import Recording
from sidecar import errors
from sidecar.engines.scripted_engine import SPEC
from sidecar.interfaces.live_events import Final, Partial, TurnEnded
from sidecar.interfaces.live_options import LiveOptions, TurnControl
from sidecar.plugins import load_settings
from sidecar.plugins.grpc_stt import stt_pb2
from sidecar.plugins.grpc_stt.session import GrpcResults
from sidecar.plugins.grpc_stt.session_options import session_options
from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk
from sidecar.server.app import create_listeners
from sidecar.transcripts.transcript import Segment

TOKEN = "a token that nobody guesses"
SPEECH = sound((0.3, 1.0), (0, 1.0), (0.3, 1.0), (0, 1.0))
FORKS = "GRPC_ENABLE_FORK_SUPPORT"
Status = grpc.StatusCode


heard = service_of_module(grpc_port=0)


@pytest.fixture
def client(heard: Server) -> Iterator[Client]:
    with Client(heard.health()["grpc_port"]) as client:
        yield client


strict = service_of_module(grpc_port=0, token=TOKEN)
"""One with a token."""


@pytest.fixture
def known(strict: Server) -> Iterator[Client]:
    with Client(strict.health()["grpc_port"], authorization=f"Bearer {TOKEN}") as client:
        yield client


@pytest.fixture
def stranger(strict: Server) -> Iterator[Client]:
    with Client(strict.health()["grpc_port"]) as client:
        yield client


def test_grpc_fork_handlers_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its handlers one in fifty ffmpegs died that were started under calls (8 of 400)."""
    monkeypatch.delenv(FORKS)
    settings, nothing = load_settings(grpc_port=0, grpc_client_ca=Path("ca.pem")), cast("Any", None)
    with socket.socket() as grpc_socket, pytest.raises(errors.SettingsInvalid):
        create_listeners(settings, nothing, nothing, nothing, {"grpc_port": grpc_socket})
    assert os.environ[FORKS] == "0"


# --- what a session says


def test_answer_to_a_created_session_has_its_options_and_attributes_without_the_api_key(
    client: Client,
) -> None:
    answer = client.create("told", language_code="EN", attributes={"who": "me", "api_key": "k"})
    assert dict(answer.attributes) == {
        "who": "me", "decode_profile": "realtime", "language_code": "en"
    }  # fmt: skip
    assert (answer.token, answer.token_required) == ("", False)
    assert (answer.vad_silence, answer.vad_threshold) == (0.5, 0.5)
    assert (answer.task, answer.decode_profile) == (1, 1)
    assert client.say("told", b"").status is Status.OK


def test_each_utterance_has_one_final_after_its_partials(client: Client) -> None:
    client.create("two", language_code="EN")
    begins = threading.Event()

    def speak() -> Iterator[bytes]:
        chunks = [one.SerializeToString() for one in chunks_of("two", SPEECH)]
        yield from chunks[:10]
        begins.wait(PATIENCE_S)  # the first words, before the rest is said
        yield from chunks[10:]

    call = client.open(speak(), "two")
    results = [next(call)]
    begins.set()
    said = ended(call)
    assert (said.status, said.details) == (Status.OK, "")
    said.results[:0] = results
    assert not said.results[0].is_final
    assert len(said.finals) == 2
    first, second = said.finals
    assert first.text.startswith("w")
    assert 0 <= first.start_sec < first.end_sec <= second.start_sec < second.end_sec <= 4
    assert {(one.language_code, one.language, one.probability) for one in said.finals} == {
        ("en", "English", 1.0)
    }
    partials = [result for result in said.results if not result.is_final]
    for one in partials:
        assert one.text.startswith(one.committed_text)
        assert one.text.endswith(one.unstable_text)


def test_single_utterance_stream_ends_at_its_first_pause(client: Client) -> None:
    client.create("one", vad_mode=1)
    over = threading.Event()
    chunks = chunks_of("one", sound((0.3, 10.0)), then=lambda: not over.is_set())
    said = client.stream(chunks, "one")
    over.set()
    assert said.status is Status.OK
    assert len(said.finals) == 1
    assert said.results[-1].is_final
    assert said.finals[0].end_sec > 9  # more than an engine hears at once, and still one


def test_comma_that_begins_a_segment_of_a_single_utterance_follows_the_text_before_it() -> None:
    results = GrpcResults(LiveOptions(turns=TurnControl.ONE))
    assert results.of(Final(0, 0, Segment(0.0, 1.0, "In short"))) is None
    partial = results.of(Partial(0, 1, 1.0, 2.0, ", the", ", the"))
    assert partial is not None
    assert partial.committed_text == partial.text == "In short, the"
    assert results.of(Final(0, 1, Segment(1.0, 2.0, ", the period"))) is None
    ended = results.of(TurnEnded(0, 0.0, 2.0, "In short, the period"))
    assert ended is not None
    assert ended.text == "In short, the period"


def test_half_closed_stream_ends_with_its_final_as_after_a_last_chunk(client: Client) -> None:
    client.create("half")
    chunks = [AudioChunk(pcm16=sound((0.3, 0.5)), session_id="half")]
    said = client.stream(chunks)  # the id is in the chunks alone
    assert said.status is Status.OK
    assert len(said.finals) == 1


def test_file_in_one_last_chunk_is_recognized_up_to_the_message_limit(client: Client) -> None:
    client.create("file", decode_profile=2)
    rate = 96_000
    raw = sound((0.3, 2.0), (0, 38.0), (0.3, 2.0), rate=rate)
    assert len(raw) > 7 << 20
    chunk = AudioChunk(pcm16=raw, sample_rate=rate, is_final=True, session_id="file")
    said = client.stream([chunk])
    assert said.status is Status.OK
    assert said.finals[-1].end_sec == pytest.approx(42, abs=0.5)


def test_chunks_have_their_own_rate_and_those_of_other_sessions_are_skipped_and_counted(
    client: Client,
) -> None:
    client.create("slow")
    raw = sound((0.3, 1.0), rate=8000)
    said = client.stream(
        [
            AudioChunk(pcm16=raw, sample_rate=8000, session_id="slow"),
            AudioChunk(pcm16=raw, sample_rate=8000, session_id="another"),
            AudioChunk(is_final=True),
        ],
        "slow",
    )
    assert said.finals[-1].end_sec == pytest.approx(1.0, abs=0.1)
    assert said.trailing["skipped-chunks"] == "1"


late = service_of_module(grpc_port=0, live_timeout=0.2, scripted_hear=2)


def test_stream_says_from_where_on_words_are_missing_if_speech_was_not_recognized_in_time(
    late: Server, client: Client
) -> None:
    with Client(late.health()["grpc_port"]) as slow:
        slow.create("late")
        said = slow.stream(chunks_of("late", sound((0, 1.0), (0.3, 1.0), (0, 1.0))), "late")
    assert (said.status, said.finals) == (Status.OK, [])
    assert float(said.trailing["recognized-sec"]) == pytest.approx(1.0, abs=0.3)
    client.create("whole")
    assert "recognized-sec" not in client.stream(chunks_of("whole", SPEECH), "whole").trailing


@pytest.mark.parametrize("threshold", [0.01, 0.15, 0.5, 0.9])
def test_end_threshold_lies_below_every_vad_threshold_and_the_sure_one_not_below(
    threshold: float,
) -> None:
    request = stt_pb2.SessionRequest(session_id="s", vad_threshold=threshold)
    found = session_options(request, SPEC, load_settings()).options.endpointing
    assert found.threshold == threshold
    assert 0 < found.neg_threshold < threshold <= found.sure_threshold


def test_vad_threshold_override_of_zero_takes_all_audio_and_plain_zero_is_the_default(
    client: Client,
) -> None:
    assert client.create("off", vad_threshold_override=0.0).vad_threshold == 0
    assert client.create("usual", vad_threshold=0.0).vad_threshold == 0.5
    assert client.create("own", vad_threshold=0.9, vad_silence=2.0).vad_silence == 2.0
    said = client.say("off", sound((0.002, 1.0)))  # nobody would call that speech
    assert said.status is Status.OK
    assert "stt-decode-count" in said.trailing
    for name in ("usual", "own"):
        assert client.say(name, b"").status is Status.OK


def test_trailing_metadata_of_a_refused_or_ended_stream_has_its_decoding_times(
    client: Client,
) -> None:
    client.create("timed", require_token=True)
    failed = client.say("timed", SPEECH)
    client.create("timed")
    said = client.say("timed", SPEECH)
    names = ("buffer-wait", "queue-wait", "inference", "response-emit")
    for one in (failed, said):
        parts = [float(one.trailing[f"stt-decode-{name}-sec"]) for name in names]
        assert float(one.trailing["stt-decode-total-sec"]) == pytest.approx(sum(parts), abs=1e-5)
    assert failed.number == "ERR1005"
    assert int(said.trailing["stt-decode-count"]) == 2


def test_cancelled_call_leaves_no_session(client: Client, heard: Server) -> None:
    client.create("gone")
    call = client.open((one.SerializeToString() for one in chunks_of("gone", SPEECH, 0.05)), "gone")
    next(call)
    call.cancel()
    wait_until(lambda: client.creates("gone"), "the id is free again")
    assert client.say("gone", b"").status is Status.OK
    assert "Traceback" not in heard.log()


# --- who may come in


def test_session_token_got_with_the_api_key_is_enough_for_a_stream_and_a_wrong_one_refused(
    stranger: Client,
) -> None:
    answer = stranger.create("mine", attributes={"api_key": TOKEN})
    assert answer.token_required
    assert len(answer.token) == 32
    assert stranger.say("mine", b"", session_token="0" * 32).number == "ERR1005"
    said = stranger.say("mine", SPEECH, session_token=answer.token)
    assert (said.status, len(said.finals)) == (Status.OK, 2)


def test_authenticated_client_needs_no_session_token_unless_the_session_requires_one(
    known: Client,
) -> None:
    known.create("named")
    assert known.say("named", b"").status is Status.OK
    known.create("named", require_token=True)
    assert known.say("named", b"").number == "ERR1005"
    assert known.say("named", b"").number == "ERR1004"  # a wrong one of its own ends it


# --- what is beside it


def test_health_and_reflection_answer_without_a_token(stranger: Client) -> None:
    stub = health_pb2_grpc.HealthStub(stranger.channel)
    for name in ("", "stt.STTBackend"):
        request = health_pb2.HealthCheckRequest(service=name)
        answer = stub.Check(request, timeout=PATIENCE_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    described = ProtoReflectionDescriptorDatabase(stranger.channel)
    assert set(described.get_services()) == {
        "stt.STTBackend", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
    }  # fmt: skip
    file = described.FindFileContainingSymbol("stt.STTBackend")
    assert file.SerializeToString() == stt_pb2.DESCRIPTOR.serialized_pb


def test_ready_line_has_the_grpc_port_also_if_a_service_is_reused(tmp_path: Path) -> None:
    port = str(free_port())
    words = ["--port", port, "--data-dir", str(tmp_path), "--grpc-port", "0"]
    words += ["--if-port-taken", "reuse"]
    command = [sys.executable, "-m", "sidecar.main", "serve", "--engine", "scripted", *words]
    with popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        try:
            assert first.stdout is not None
            ready = json.loads(first.stdout.readline())
            second = run_command(command)
            with Client(ready["grpc_port"]) as client:
                assert client.say("nobody", b"").number == "ERR1004"
        finally:
            first.terminate()
    again = json.loads(second.stdout)
    assert again["reused"]
    assert again["grpc_port"] == ready["grpc_port"] > 0


@pytest.mark.slow
def test_streams_at_shutdown_get_a_last_final_and_unavailable(tmp_path: Path) -> None:
    heard, hold = [threading.Event() for _ in range(20)], tmp_path / "hold"
    with (
        Server(
            tmp_path, grpc_port=0, shutdown_grace=PATIENCE_S, scripted_hold=hold, scripted_speed=20
        ) as server,
        ThreadPoolExecutor(len(heard)) as threads,
        Client(server.health()["grpc_port"]) as client,
    ):
        talks = [threads.submit(talk, client, f"t-{n}", one) for n, one in enumerate(heard)]
        client.create("late")
        stub = health_pb2_grpc.HealthStub(client.channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        assert all(one.wait(PATIENCE_S) for one in heard)
        hold.touch()
        server.segments(server.submit(Recording(1, 10).wav()))  # it runs until the hold is gone
        server.process.terminate()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        refused = [client.refused("later"), client.stream([], "late")]
        hold.unlink()
        found = [one.result(PATIENCE_S) for one in talks]
        assert server.process.wait(PATIENCE_S) == 0
        ends = {(one.status, one.number, one.details) for one in (*refused, *found)}
        assert [end[:2] for end in ends] == [(Status.UNAVAILABLE, "ERR1013")], ends
        for one in found:
            assert one.results[-1].is_final
            assert one.finals[-1].end_sec >= max(result.end_sec for result in one.results)
        assert "internal error" not in server.log()


def talk(client: Client, name: str, heard: threading.Event) -> Ended:
    """Without a pause, for as long as anybody listens; ``heard`` once something is told.

    By gRPC's classic client: where a call ends while its asyncio one writes, that may forget the
    status that it was told (https://github.com/grpc/grpc/issues/36066).
    """
    client.create(name)
    tenth = AudioChunk(pcm16=sound((0.3, 0.1)), session_id=name).SerializeToString()
    over = threading.Event()

    def speak() -> Iterator[bytes]:
        while not over.wait(0.1):
            yield tenth

    call = client.open(speak(), name)
    call.add_done_callback(lambda _: over.set())
    return ended(call, heard.set)
