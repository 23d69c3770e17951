"""Our own wire of live audio, as a client sees it that knows docs/live-wire.md and nothing else."""

import asyncio
import dataclasses
import json
import re
import sys
from typing import Annotated, Any, Union

import numpy as np
import pytest
from live_wire import next_of, rest, say, wire
from pydantic import Field, TypeAdapter
from scripted_speech import pieces, sound, talk
from service_process import REPOSITORY, Server, StartServer, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sidecar import errors
from sidecar.api import live_messages, live_routes
from sidecar.interfaces.live_options import EndpointingOptions, LiveOptions, SampleEncoding

sys.path.append(str(REPOSITORY / "docs"))
from live_event_schemas import SERVER_MESSAGES, LiveMessage


def test_hotwords_of_a_live_session_are_split_at_commas_and_semicolons() -> None:
    request = live_messages.LiveOptionsRequest(hotwords="Nagg, Nell; two words,")
    assert request.upon(LiveOptions()).hotwords == ("Nagg", "Nell", "two words")
    assert request.upon(LiveOptions(prompt="Beckett")).prompt == "Beckett"


async def test_live_session_sends_began_received_segments_and_summary(server: Server) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", session="first", language="en", diarize=False)
        began = await next_of(socket, "began")
        assert began == {
            "type": "began",
            "session": "first",
            "engine": server.health()["live_engine"],
            "grace_s": 15.0,
            "received_samples": 0,
            "received_s": 0.0,
            "received_orders": 0,
            "heard_s": 0.0,
            "recognized_s": 0.0,
        }
        for piece in pieces(talk(0.3, 0.2)):
            await socket.send(piece)
        said: list[dict[str, Any]] = []
        received = await next_of(socket, "received", skipped=said)
        assert received["received_samples"] == round(received["received_s"] * 16_000)
        await say(socket, "finish")
        more, code = await rest(socket)
    said += more
    events = [body for body in said if body["type"] != "received"]
    numbers = [body["number"] for body in events]
    assert numbers == sorted(set(numbers))
    assert code == 1000
    last = events[-1]
    assert last["type"] == "summary"
    assert last["transcript"]["metadata"]["language"] == "en"
    finals = [body["segment"] for body in events if body["type"] == "final"]
    assert len(finals) == 2
    assert finals == last["transcript"]["segments"]
    kinds = {body["type"] for body in events}
    assert kinds >= {"speech_stopped", "final", "turn_ended", "summary"}
    async with wire(server) as socket:  # who closed with 1000 has given the session back
        await say(socket, "begin", session="first")
        await next_of(socket, "began")


async def test_websocket_at_a_wrong_address_returns_404_with_the_right_ones(server: Server) -> None:
    for path in ("v1/lives", "v1/talk"):  # nothing, and an address of HTTP
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{server.port}/{path}")
        response = refused.value.response
        problem = json.loads(response.body or b"{}")
        assert (response.status_code, problem.get("code")) == (404, "not_found")
        assert all(one in problem["hint"] for one in ("/v1/live", "/v1/realtime", "/stream"))


async def test_reconnect_gets_the_received_count_and_missed_events(server: Server) -> None:
    raw = talk(0.3, 0.2)
    async with wire(server) as socket:
        await say(socket, "begin", session="cut", encoding="pcm16", rate=16_000)
        await socket.send(raw[: 2 * 44_444])
        await say(socket, "commit")
        final = await next_of(socket, "final")
        while (heard := (await next_of(socket, "received"))["heard_s"]) < final["segment"][
            "end_time"
        ]:
            pass
        socket.transport.abort()
    async with wire(server) as socket:
        await say(socket, "begin", session="cut", after=0, rate=16_000)
        began = await next_of(socket, "began")
        assert began["heard_s"] >= heard, "and not 0, though nothing came on this connection"
        assert began["received_samples"] == 44_444, "exact: from here it is sent again"
        assert began["received_orders"] == 1
        again = await next_of(socket, "final")
        assert again == final
        await socket.send(raw[2 * 44_444 :])
        await say(socket, "commit")
        await say(socket, "finish")
        said, _ = await rest(socket)
    heard_s = said[-1]["transcript"]["metadata"]["duration"]
    assert heard_s == pytest.approx(len(raw) / 32_000, abs=0.032), "by a frame of the detector"
    assert len(said[-1]["transcript"]["segments"]) == 2


async def test_client_that_reconnects_after_the_end_of_its_session_gets_the_summary_again(
    start_server: StartServer,
) -> None:
    server = start_server()

    def now(part: str, name: str) -> int:
        return int(server.client.get("/metrics.json").json()["vibevoice"][part][name])

    async with wire(server) as socket:
        await say(socket, "begin", session="unheard")
        await socket.send(talk(0.3))
        await say(socket, "finish")
        summary = await next_of(socket, "summary")
        await until(lambda: now("live", "sessions") == 0, "its engine has let go of it")
        socket.transport.abort()
        await until(lambda: now("http", "websockets_open") == 0, "nobody holds it")
    async with wire(server) as socket:
        await say(socket, "begin", session="unheard", after=summary["number"] - 1)
        said, code = await rest(socket)
        assert said[-1] == summary
        assert code == 1000


async def test_newer_connection_takes_over_a_session_and_no_audio_counts_twice(
    server: Server,
) -> None:
    for number in range(3):
        async with wire(server) as older, wire(server) as newer:
            await say(older, "begin", session=f"ours-{number}")
            await next_of(older, "began")
            for _ in range(4000):  # more than the service takes before the newer comes
                await older.send(bytes(320))
            await say(newer, "begin", session=f"ours-{number}", after=0)
            began = await next_of(newer, "began")
            said, code = await rest(older)
            assert (said[-1]["code"], code) == ("session_moved", 4409)
            await newer.send(talk(0.3))
            await say(newer, "finish")
            duration = (await rest(newer))[0][-1]["transcript"]["metadata"]["duration"]
            assert duration == pytest.approx(
                began["received_s"] + len(talk(0.3)) / 32_000, abs=0.001
            )


async def test_commit_ends_a_turn_cancel_drops_one_and_change_lets_silence_end_them(
    server: Server,
) -> None:
    async with wire(server) as socket:
        await say(socket, "begin", turns="client", partials=False)
        await socket.send(sound((0.2, 0.0), (1.0, 0.3)))
        await say(socket, "commit")
        ended = await next_of(socket, "turn_ended")
        assert ended["text"]
        await socket.send(sound((1.0, 0.4)))
        await say(socket, "cancel")
        await next_of(socket, "turn_dropped")
        await say(socket, "change", turns="silence", endpointing={"silence_s": 0.3})
        await socket.send(sound((0.3, 0.0), (1.0, 0.2), (0.6, 0.0)))
        assert (await next_of(socket, "turn_ended"))["text"].split()[-1].startswith("w")
        await say(socket, "finish")
        said, _ = await rest(socket)
    texts = " ".join(one["text"] for one in said[-1]["transcript"]["segments"])
    assert "w399" not in texts, "what was cancelled is not said"


SOON = {"type": "begin"}
TOO_LONG = {"endpointing": {"pre_roll_s": 20, "longest_s": 50}}


@pytest.mark.parametrize(
    ("messages", "code", "closes"),
    [
        (["{"], "message_invalid", 1007),
        ([b"\0\0"], "message_invalid", 1007),
        ([{"type": "commit"}], "message_invalid", 1007),
        ([{"type": "sing"}], "message_invalid", 1007),
        ([{**SOON, "tempo": 3}], "field_invalid", 1007),
        ([{**SOON, "rate": 7999}], "field_invalid", 1007),
        ([{**SOON, **TOO_LONG}], "field_invalid", 1007),
        ([{**SOON, "language": "no language"}], "language_invalid", 1007),
        ([{**SOON, "session": "a b"}], "field_invalid", 1007),
        ([{**SOON, "after": 3}], "field_missing", 1007),
        ([{**SOON, "session": "nobody", "after": 0}], "session_not_found", 4404),
        ([SOON, SOON], "message_invalid", 1007),
        ([SOON, bytes(2 * 16_000 * 11)], "chunk_too_long", 1009),
        ([SOON, {"type": "finish"}, {"type": "commit"}], "session_over", 4409),
        ([SOON, {"type": "change", **TOO_LONG}], "field_invalid", 1007),
        ([SOON, {"type": "change", "language": "no language"}], "language_invalid", 1007),
    ],
)
async def test_invalid_live_message_is_answered_with_an_error_and_closes_the_connection(
    server: Server, messages: list[Any], code: str, closes: int
) -> None:
    async with wire(server) as socket:
        for message in messages:
            if isinstance(message, bytes):
                socket.protocol.send_binary(message)
            else:
                text = message if isinstance(message, str) else json.dumps(message)
                socket.protocol.send_text(text.encode())
        # In one: a session that is to finish may be over before a second piece arrives.
        socket.transport.write(b"".join(socket.protocol.data_to_send()))
        said, closed = await rest(socket)
    assert (said[-1]["type"], said[-1]["code"], closed) == ("error", code, closes)
    assert said[-1]["message"]
    assert said[-1]["hint"]


async def test_audio_after_finish_is_ignored_and_all_finals_still_arrive(server: Server) -> None:
    async with wire(server) as socket:
        await say(socket, "begin")
        for piece in pieces(talk(0.3, 0.2)):
            await socket.send(piece)
        await say(socket, "finish")
        for late in (bytes(3200), bytes(3)):
            await socket.send(late)
        said, code = await rest(socket)
    kinds = [one["type"] for one in said if one["type"] in ("final", "summary", "error")]
    assert kinds == ["final", "final", "summary"]
    assert code == 1000


async def test_live_client_with_wrong_token_gets_http_401_and_a_browser_an_error_frame(
    start_server: StartServer,
) -> None:
    """A script cannot read the status; it offers a subprotocol or has an origin."""
    server = start_server(token="the right one, at last")
    for headers, refusal in (({}, "missing"), ({"Authorization": "Bearer wrong"}, "invalid")):
        with pytest.raises(InvalidStatus) as refused:
            async with wire(server, additional_headers=headers):
                pass
        response = refused.value.response
        assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert json.loads(response.body)["code"] == f"token_{refusal}"
    for more in (
        {"subprotocols": ["vibevoice-live", "bearer.wrong"]},
        {"origin": f"http://127.0.0.1:{server.port}"},
    ):
        async with wire(server, **more) as socket:
            said, code = await rest(socket)
        assert (said[-1]["type"], code) == ("error", 4401)


SAID: TypeAdapter[LiveMessage] = TypeAdapter(
    Annotated[Union[SERVER_MESSAGES], Field(discriminator="type")]  # noqa: UP007
)


async def test_every_server_message_matches_the_published_schema(server: Server) -> None:
    seen: set[str] = set()
    async with wire(server) as socket:
        await say(socket, "begin", words=True, keep=True)
        for piece in pieces(talk(0.3, 0.2)):
            await socket.send(piece)
        await asyncio.sleep(0)
        await say(socket, "commit")
        await say(socket, "cancel")
        await say(socket, "finish")
        said, _ = await rest(socket)
    async with wire(server) as socket:
        await say(socket, "sing")
        said += (await rest(socket))[0]
    for one in said:
        SAID.validate_json(json.dumps(one), strict=True)
        seen.add(one["type"])
    assert {"began", "speech_started", "final", "turn_ended", "turn_dropped"} <= seen
    assert {"summary", "error"} <= seen
    server.client.delete(f"/v1/jobs/{next(one['job'] for one in said if 'job' in one)}")
    page = json.loads((REPOSITORY / "docs/live.asyncapi.json").read_text("utf-8"))
    kinds = [
        each.get("const", each.get("enum"))
        for schema in page["components"]["schemas"].values()
        if (each := schema.get("properties", {}).get("type"))
    ]
    named = {name for kind in kinds for name in ([kind] if isinstance(kind, str) else kind)}
    assert named == {
        *live_messages.EVENT_TYPES.values(),
        *("began", "received", "error", "begin", "change", "commit", "cancel", "finish"),
    }
    text = json.dumps(page)
    for ref in re.findall(r'"\$ref": "#/([^"]+)"', text):
        place: Any = page
        for step in ref.split("/"):
            place = place[step]


@pytest.mark.slow
async def test_live_rate_limit_counts_commands_and_tiny_audio_messages_but_no_usual_packets(
    start_server: StartServer,
) -> None:
    server = start_server(limits={"live_messages_per_minute": 40})
    for rate, samples in ((16_000, 160), (48_000, 128), (96_000, 128), (192_000, 128)):
        async with wire(server) as socket:
            await say(socket, "begin", rate=rate)
            for _ in range(200):
                await socket.send(bytes(2 * samples))
            await say(socket, "finish")
            summary = await next_of(socket, "summary")
            duration = summary["transcript"]["metadata"]["duration"]
            assert duration == pytest.approx(200 * samples / rate, abs=0.1)
    for message in (b"", bytes(2), json.dumps({"type": "commit"})):
        async with wire(server) as socket:
            await say(socket, "begin")
            for _ in range(41):
                await socket.send(message)
            said, code = await rest(socket)
            assert (said[-1]["type"], said[-1]["code"], code) == ("error", "rate_limited", 4429)


@pytest.mark.parametrize(
    ("encoding", "size"), [("pcm16", 1), ("pcm16", 1601), ("float32", 2047), ("float32", 9)]
)
async def test_samples_split_across_messages_are_joined_and_a_half_one_at_the_end_is_dropped(
    encoding: str, size: int, server: Server
) -> None:
    samples = np.full(400 if size < 10 else 16_000, 0.25, "<f4")
    if encoding == "pcm16":
        samples = (samples * 32767).astype("<i2")
    sound = samples.tobytes()
    async with wire(server) as socket:
        await say(socket, "begin", encoding=encoding)
        for start in range(0, len(sound), size):
            await socket.send(sound[start : start + size])
        await socket.send(b"\1")  # a half sample at the end is dropped
        await say(socket, "finish")
        summary = await next_of(socket, "summary")
    duration = summary["transcript"]["metadata"]["duration"]
    assert duration == pytest.approx(len(samples) / 16_000, abs=0.001)


def test_live_docs_name_every_message_field_and_close_code() -> None:
    page = (REPOSITORY / "docs/live-wire.md").read_text("utf-8")
    fields = {
        *live_messages.LiveBeginRequest.model_fields,
        *live_messages.LiveEndpointing.model_fields,
    }
    unnamed = [
        name for name in (*live_messages.EVENT_TYPES.values(), *fields) if f"`{name}`" not in page
    ]
    assert unnamed == []
    assert all(str(code) in page for code in live_routes.LIVE_CLOSE_CODES.values())


def test_schema_has_defaults_and_descriptions_of_endpointing() -> None:
    schema = live_messages.LiveEndpointing.model_json_schema()["properties"]
    defaults = {name: field["default"] for name, field in schema.items()}
    assert defaults == dataclasses.asdict(EndpointingOptions())
    assert all(field["description"] for field in schema.values())
    assert live_messages.LiveEndpointing().model_dump(exclude_none=True) == {}, "changes nothing"


def test_begin_message_with_any_known_encoding_is_accepted() -> None:
    for known in (*SampleEncoding, live_messages.OPUS):
        assert live_messages.parse_request(json.dumps({"type": "begin", "encoding": known}))


FIELD, MESSAGE = errors.FieldInvalid, errors.MessageInvalid


@pytest.mark.parametrize(
    ("text", "error", "detail"),
    [
        ('{"type": "begin", "encoding": "mp3"}', FIELD, "be 'pcm16', 'float32' or 'opus'."),
        ('{"type": "begin", "langauge": "de"}', FIELD, "'langauge'. Did you mean 'language'?"),
        ('{"type": "change", "endpointing": {"silence": 1}}', FIELD, "Did you mean 'silence_s'?"),
        ('{"type": "finish", "xyz": 1}', FIELD, "There is no field 'xyz'."),
        ('{"type": "change", "channels": 2}', FIELD, "A request 'change' has no field 'channels'."),
        ('{"type": "stop"}', MESSAGE, "'stop'; there are begin, change, commit, cancel, finish."),
        ("{}", MESSAGE, "The message has no 'type'."),
    ],
    ids=["encoding", "misspelled", "within", "strange", "of another type", "type", "no type"],
)
def test_live_message_with_unknown_type_field_or_encoding_is_refused_naming_it(
    text: str, error: type[errors.SidecarError], detail: str
) -> None:
    with pytest.raises(error) as told:
        live_messages.parse_request(text)
    assert told.value.detail.endswith(detail)
