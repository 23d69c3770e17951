"""Wyoming: the official package's client is answered, and nothing that is sent stays or breaks."""

import asyncio
import contextlib
import io
import json
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc_in_process import Named, access_control
from hypothesis import example, given, settings
from hypothesis import strategies as st
from module_services import service_of_module
from recordings import wav
from service_process import PATIENCE_S, Server, StartServer, check_discreet, new_file, wait_until
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event, async_write_event, read_event, write_event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong

from sidecar import errors
from sidecar.auth.authentication import AccessControl
from sidecar.auth.identity import AuthMethod
from sidecar.plugins import load_settings
from sidecar.plugins.wyoming.errors import MessageTooBig
from sidecar.plugins.wyoming.messages import (
    LARGEST_DATA,
    LARGEST_PAYLOAD,
    LONGEST_LINE,
    WyomingClientGone,
    WyomingEventReader,
)
from sidecar.plugins.wyoming.server import MOST_CONNECTIONS, WyomingAllowlist, WyomingServer

PCM = {"rate": 16_000, "width": 2, "channels": 1}
SECOND = b"\1\0" * 16_000
SOUND = [AudioStart(**PCM), AudioChunk(audio=SECOND * 3, **PCM), AudioStop()]


server = service_of_module(wyoming_port=0, max_upload_mb=1)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncTcpClient]:
    async with connected(server) as one:
        yield one


def connected(server: Server) -> AsyncTcpClient:
    port = int(server.health()["wyoming_port"])
    return AsyncTcpClient("127.0.0.1", port, read_timeout=PATIENCE_S)


def text_of(server: Server, recording: bytes) -> str:
    """What HTTP says to it."""
    form = {"model": "whisper-1", "response_format": "json"}
    answer = server.client.post("/v1/audio/transcriptions", files={"file": recording}, data=form)
    return str(answer.raise_for_status().json()["text"])


async def say(client: AsyncTcpClient, *events: Any) -> None:
    for event in events:
        await client.write_event(event if isinstance(event, Event) else event.event())


async def all_said(client: AsyncTcpClient) -> list[Event]:
    """What comes until the transcript is over, or the connection is."""
    found: list[Event] = []
    while (event := await client.read_event()) is not None:
        found.append(event)
        if TranscriptStop.is_type(event.type):
            break
    return found


async def heard(server: Server, *, busy: bool = True) -> None:
    """Wait until something is being heard, or nothing."""

    def reached() -> bool:
        return (server.health()["engine_state"] == "busy") is busy

    await asyncio.to_thread(wait_until, reached, f"busy: {busy}")


async def refused(client: AsyncTcpClient) -> str:
    """The code of the error that ends the connection."""
    event = await client.read_event()
    assert event is not None
    error = Error.from_event(event)
    check_discreet(error.text)
    assert await client.read_event() is None
    return str(error.code)


async def test_describe_is_answered_with_the_engine_and_its_languages(
    client: AsyncTcpClient,
) -> None:
    await say(client, Describe())
    event = await client.read_event()
    assert event is not None
    (program,) = Info.from_event(event).asr
    (model,) = program.models
    assert model.name == "scripted"
    assert model.installed
    assert program.supports_transcript_streaming
    assert {"en", "de"} <= set(model.languages)
    assert model.attribution.name


@pytest.mark.parametrize(
    "sound", [[], [AudioChunk(audio=b"", **PCM)], [AudioChunk(audio=b"\1", **PCM)]]
)
async def test_recording_without_a_sample_has_an_empty_transcript_and_the_next_one_its_words(
    client: AsyncTcpClient, sound: list[AudioChunk]
) -> None:
    """As of a button that was let go at once."""
    await say(client, Transcribe(language="en"), AudioStart(**PCM), *sound, AudioStop())
    begun, whole, over = await all_said(client)
    assert TranscriptStart.is_type(begun.type)
    assert Transcript.from_event(whole) == Transcript("", language="en")
    assert TranscriptStop.is_type(over.type)
    await say(client, *SOUND)
    *_, whole, _ = await all_said(client)
    assert Transcript.from_event(whole).text


async def test_transcript_in_chunks_and_whole_equals_that_of_http_twice_on_one_connection(
    client: AsyncTcpClient, server: Server
) -> None:
    """The same as over HTTP, and the connection goes on."""
    text = text_of(server, wav(SECOND * 3))
    for _ in range(2):
        await say(client, Transcribe(language="en", transcript_names=["Ada  Byron"]), *SOUND)
        first, *chunks, whole, last = await all_said(client)
        assert TranscriptStart.is_type(first.type)
        assert TranscriptStop.is_type(last.type)
        assert len(chunks) == 3
        assert "".join(TranscriptChunk.from_event(one).text for one in chunks) == text
        assert Transcript.from_event(whole).text == text
    assert server.leftovers() == []


async def test_audio_chunks_of_another_format_are_transcribed_without_audio_start(
    client: AsyncTcpClient, tmp_path: Path, server: Server
) -> None:
    """As a file is sent by those who have one: chunks say themselves what they are."""
    stereo = {"rate": 8_000, "width": 4, "channels": 2}
    await say(client, AudioChunk(audio=bytes(8) * 8_000, **stereo), AudioStop())
    assert Transcript.from_event((await all_said(client))[-2]).text
    file = new_file(tmp_path / "sound.wav", wav(SECOND * 2))
    import wave

    with wave.open(str(file)) as reader:
        await say(client, *wav_to_chunks(reader, 1024, start_event=True, stop_event=True))
    whole = Transcript.from_event((await all_said(client))[-2])
    assert whole.text == text_of(server, wav(SECOND * 2))


async def test_events_of_other_services_are_skipped_and_ping_is_answered(
    client: AsyncTcpClient,
) -> None:
    later = Event("voice-started", {"timestamp": 1}, b"payload of a later version")
    await say(client, later, SelectProgram("scripted"), Ping("there?"))
    event = await client.read_event()
    assert event is not None
    assert Pong.from_event(event).text == "there?"


async def test_ping_is_answered_during_recognition_and_a_hangup_cancels_the_job(
    tmp_path: Path,
) -> None:
    hold = new_file(tmp_path / "hold", "")
    with Server(tmp_path, wyoming_port=0, scripted_hold=hold, scripted_speed=3) as held:
        async with connected(held) as client:
            await say(client, *SOUND, Ping())
            while (event := await client.read_event()) is not None and not Pong.is_type(event.type):
                assert not Transcript.is_type(event.type)
            assert event is not None
            hold.unlink()
            assert Transcript.is_type((await all_said(client))[-2].type)
            # who hangs up takes the job with it, minutes of work
            chunk = AudioChunk(audio=SECOND * 99, **PCM)
            await say(client, SOUND[0], *[chunk] * 10, SOUND[-1])
            await heard(held)
        await heard(held, busy=False)
        counted = 'vibevoice_jobs_ended_total{outcome="cancelled"} 1.0'

        def cancelled() -> bool:
            return counted in held.client.get("/metrics").text

        await asyncio.to_thread(wait_until, cancelled, "the job went with its client")


@pytest.mark.slow
async def test_half_closed_connection_gets_the_transcript(tmp_path: Path) -> None:
    with Server(tmp_path, wyoming_port=0, scripted_speed=8) as slow:
        port = int(slow.health()["wyoming_port"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for event in SOUND:
            await async_write_event(event.event(), writer)
        writer.write_eof()
        kinds = []
        while (event := await async_read_event(reader)) is not None:
            kinds.append(event.type)
        assert kinds[-2:] == ["transcript", "transcript-stop"]
        writer.close()


WRONG: list[tuple[list[Any], str]] = [
    ([Transcribe(name="large")], "model_not_found"),
    ([SelectProgram("piper")], "model_not_found"),
    ([Transcribe(language="no language")], "language_invalid"),
    ([Event("transcribe", {"transcript_names": "Ada"})], "field_invalid"),
    *(
        ([Event(kind, {**PCM, name: value})], "sound_invalid")
        for kind in ("audio-start", "audio-chunk")
        for name in PCM
        for value in ("16000", 1e308, -0.5, True, None, [1e308], 10**400)
    ),
    ([AudioStart(rate=16_000, width=1, channels=1)], "sound_invalid"),
    ([AudioStart(**PCM), AudioChunk(audio=b"", rate=8000, width=2, channels=1)], "sound_invalid"),
    ([AudioStop()], "message_invalid"),
    ([AudioStart(**PCM), AudioChunk(audio=SECOND * 40, **PCM)], "upload_too_large"),
]


@pytest.mark.parametrize(("events", "code"), WRONG)
async def test_invalid_events_are_an_error_that_ends_the_connection(
    events: list[Any], code: str, client: AsyncTcpClient, server: Server
) -> None:
    await say(client, *events)
    assert await refused(client) == code
    assert server.leftovers() == []


async def test_recording_whose_audio_stops_coming_is_upload_stalled(
    start_server: StartServer,
) -> None:
    async with connected(start_server(wyoming_port=0, limits={"upload_stall": 0.1})) as client:
        await say(client, SOUND[0])
        assert await refused(client) == "upload_stalled"


async def test_recording_whose_audio_stops_coming_is_transcribed_before_the_error(
    start_server: StartServer,
) -> None:
    async with connected(start_server(wyoming_port=0, limits={"upload_stall": 0.1})) as client:
        await say(client, *SOUND[:-1])
        while (event := await client.read_event()) is not None and event.type != "transcript":
            assert event.type != "error"
        assert event is not None
        assert Transcript.from_event(event).text
        while (event := await client.read_event()) is not None and event.type != "error":
            pass
        assert event is not None
        assert Error.from_event(event).code == "upload_stalled"


RAW = [
    (b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\n\r\n", "message_invalid"),
    (b'["describe"]\n', "message_invalid"),
    (b'{"data": {}}\n', "message_invalid"),
    (b'{"type": "describe", "data": 3}\n', "message_invalid"),
    (b'{"type": "describe", "data_length": -1}\n', "message_invalid"),
    (b'{"type": "describe", "data_length": true}\n', "message_invalid"),
    (b'{"type": "describe", "data_length": 2}\n[]', "message_invalid"),
    (b"[" * 60_000 + b"\n", "message_invalid"),
    (b'{"type": "audio-start", "data": {"rate": 1' + b"0" * 5000 + b"}}\n", "message_invalid"),
    (b'{"type": "audio-start", "data": {"rate": Infinity}}\n', "message_invalid"),
    (b'{"type": "describe", "data_length": 70000}\n', "message_too_big"),
    (b'{"type": "describe", "payload_length": 9000000000}\n', "message_too_big"),
    (b'{"type": "' + b"x" * 2 * LONGEST_LINE, "message_too_big"),
]


@pytest.mark.parametrize(("sent", "code"), RAW)
def test_invalid_bytes_are_an_error_that_ends_the_connection(
    sent: bytes, code: str, server: Server
) -> None:
    address = "127.0.0.1", int(server.health()["wyoming_port"])
    with socket.create_connection(address, PATIENCE_S) as sock, sock.makefile("rb") as stream:
        sock.sendall(sent)
        said = read_event(stream)
        assert said is not None
        assert Error.from_event(said).code == code
        assert stream.read() == b""


@pytest.mark.posix("file descriptors by number")
def test_connection_broken_at_any_place_leaves_no_descriptor_job_or_file(server: Server) -> None:
    """All that a client says, cut off at every event and in the middle of each."""
    whole = b"".join(
        json.dumps({"type": kind, "data": data, "payload_length": len(load)}).encode()
        + b"\n"
        + load
        for kind, data, load in (
            ("transcribe", {"language": "en"}, b""),
            ("audio-start", PCM, b""),
            ("audio-chunk", PCM, SECOND),
            ("audio-stop", {}, b""),
        )
    )
    address = "127.0.0.1", int(server.health()["wyoming_port"])
    service = server.process
    with socket.create_connection(address, PATIENCE_S) as sock:  # the engine has its descriptors
        sock.sendall(whole)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass
    descriptors = service.num_fds()
    for cut in (*range(1, 400, 20), len(whole) // 2, len(whole) - 5, len(whole)):
        with socket.create_connection(address, PATIENCE_S) as sock:
            sock.sendall(whole[:cut])
    wait_until(lambda: service.num_fds() <= descriptors, "all are closed")
    wait_until(lambda: not server.health()["jobs_waiting"], "nothing waits")
    assert server.leftovers() == []


def test_connections_beyond_the_limit_are_refused(server: Server) -> None:
    address = "127.0.0.1", int(server.health()["wyoming_port"])
    many = MOST_CONNECTIONS + 20
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address)) for _ in range(many)]

        def told() -> list[socket.socket]:
            return select.select(held, [], [], 0)[0]

        wait_until(lambda: len(told()) >= 20, "the rest are told")
        with told()[0].makefile("rb") as stream:
            said = read_event(stream)
            assert said is not None
            assert Error.from_event(said).code == "queue_full"
            assert stream.read() == b""


async def test_shutdown_sends_the_transcript_and_closes_idle_connections(tmp_path: Path) -> None:
    """Within the grace the transcript; who is idle finds the connection closed."""
    hold = new_file(tmp_path / "hold", "")
    with Server(tmp_path, wyoming_port=0, scripted_hold=hold, shutdown_grace=PATIENCE_S) as held:
        async with connected(held) as client, connected(held) as idle:
            await say(idle, Ping())
            assert await idle.read_event() is not None
            await say(client, *SOUND)
            await heard(held)
            held.process.terminate()
            assert await idle.read_event() is None
            hold.unlink()
            assert Transcript.from_event((await all_said(client))[-2]).text


# Who may come in


def allowlist(
    clients: str = "", host: str = "127.0.0.1", access: AccessControl | None = None
) -> WyomingAllowlist:
    settings = load_settings(wyoming_clients=clients, host=host)
    return WyomingAllowlist.of(settings, access or access_control())


async def test_without_a_token_wyoming_admits_only_this_machine() -> None:
    assert (await allowlist().identify("127.0.0.1")).owner == "place:everybody"
    for stranger in ("192.168.1.5", None):
        with pytest.raises(errors.PeerNotAllowed):
            await allowlist().identify(stranger)


async def test_with_tokens_wyoming_admits_only_named_addresses_which_share_a_rate_limit() -> None:
    with pytest.raises(errors.SettingsInvalid, match="wyoming-port"):
        allowlist(access=access_control(Named()))
    named = allowlist("192.168.1.0/24, 127.0.0.1", "0.0.0.0", access_control(Named(), per_minute=2))
    guest = await named.identify("192.168.1.77")
    assert (guest.owner, guest.proof, guest.scopes) == (
        "place:wyoming",
        AuthMethod.PLACE,
        frozenset(),
    )
    assert (await named.identify("::ffff:127.0.0.1")).owner == guest.owner
    with pytest.raises(errors.PeerNotAllowed):
        await named.identify("192.168.2.77")
    with pytest.raises(errors.RateLimited):
        await named.identify("192.168.1.78")


@pytest.mark.parametrize(
    ("clients", "host"), [("home-assistant", "0.0.0.0"), ("192.168.1.5", "127.0.0.1")]
)
def test_invalid_wyoming_clients_are_refused_with_the_name_of_the_setting(
    clients: str, host: str
) -> None:
    with pytest.raises(errors.SettingsInvalid, match="wyoming-clients"):
        allowlist(clients, host, access_control(Named()))


# Pure

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one), max_leaves=5
)


async def read_here(*pieces: bytes) -> Event:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    for piece in pieces:
        reader.feed_data(piece)
    reader.feed_eof()
    return await WyomingEventReader(reader).next(PATIENCE_S)


@given(st.text(min_size=1), st.dictionaries(st.text(), JSON, max_size=4), st.binary(max_size=9))
def test_any_event_written_by_the_wyoming_package_is_parsed(
    kind: str, data: dict[str, Any], payload: bytes
) -> None:
    written = io.BytesIO()
    write_event(Event(kind, data, payload), written)
    event = asyncio.run(read_here(written.getvalue()))
    assert (event.type, event.data, event.payload or b"") == (kind, data, payload)


LENGTHS = st.one_of(
    st.none(),
    st.sampled_from([-2, -1, 0, 2]),
    st.sampled_from([LARGEST_DATA, LARGEST_DATA + 1, LARGEST_PAYLOAD, LARGEST_PAYLOAD + 1]),
    st.sampled_from([10**400, True, 1.0, 1e308, "1", [], {}]),
)
EVENTS = st.fixed_dictionaries(
    {"type": st.one_of(st.text(), st.text(), st.text(), st.none())},
    optional={
        "data": st.one_of(st.none(), st.dictionaries(st.text(), JSON, max_size=4), JSON),
        "data_length": LENGTHS,
        "payload_length": LENGTHS,
    },
)


def _is_event(said: dict[str, Any]) -> bool:
    """Whether a line is one, by the protocol's own words and the limits of its page."""

    def length(name: str, most: int) -> bool:
        value = said.get(name)
        return value is None or (type(value) is int and 0 <= value <= most)

    kinds = isinstance(said["type"], str) and isinstance(said.get("data"), dict | None)
    return kinds and length("data_length", LARGEST_DATA) and length(
        "payload_length", LARGEST_PAYLOAD
    )  # fmt: skip


async def test_accepted_connection_has_no_nagle_delay_though_its_listener_has_no_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those that asyncio accepts on Windows."""
    accepted: asyncio.Queue[Any] = asyncio.Queue()

    class Connection:
        busy = False

        def __init__(self, *given: Any) -> None:
            accepted.put_nowait(given[3].get_extra_info("socket"))

        async def run(self) -> None: ...

    monkeypatch.setattr("sidecar.plugins.wyoming.server.WyomingConnection", Connection)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    nothing: Any = None
    serving = WyomingServer(nothing, nothing, listener)
    _, writer = await asyncio.open_connection("127.0.0.1", (await serving.start())["wyoming_port"])
    sock = await accepted.get()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    await serving.close()


def test_any_json_line_is_an_event_or_refused() -> None:
    taken, refused = [], []

    @settings(max_examples=max(100, settings.default.max_examples))  # many are refused
    @given(EVENTS)
    @example({"type": "audio-chunk", "data_length": LARGEST_DATA + 1})
    @example({"type": "audio-chunk", "payload_length": LARGEST_PAYLOAD + 1})
    @example({"type": "audio-chunk", "data": None, "data_length": LARGEST_DATA})
    def tried(said: dict[str, Any]) -> None:
        more, payload = (said.get(f"{name}_length") for name in ("data", "payload"))
        behind = [b"{}".ljust(more or 0), bytes(payload or 0)] if _is_event(said) else []
        try:
            event = asyncio.run(read_here(json.dumps(said).encode() + b"\n", *behind))
        except errors.SidecarError as error:
            refused.append(error.code)
            assert not _is_event(said)
        else:
            taken.append(event)
            assert _is_event(said)
            assert (event.type, event.data) == (said["type"], said.get("data") or {})
            assert len(event.payload or b"") == (payload or 0)

    tried()
    assert set(refused) == {"message_invalid", "message_too_big"}
    assert len(taken) > 10


@given(st.data(), st.binary(max_size=3))
def test_garbled_line_is_an_event_or_a_known_error(data: st.DataObject, noise: bytes) -> None:
    written = io.BytesIO()
    write_event(Event("audio-chunk", {"rate": 16_000, "text": "é"}), written)
    line = bytearray(written.getvalue())
    at = data.draw(st.integers(0, len(line)))
    line[at : at + data.draw(st.integers(0, 3))] = noise
    with contextlib.suppress(errors.MessageInvalid, MessageTooBig, WyomingClientGone):
        asyncio.run(read_here(bytes(line)))
