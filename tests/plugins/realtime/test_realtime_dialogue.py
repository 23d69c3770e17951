"""A conversation over OpenAI's Realtime API, by its own package for Python, against a real service:
who speaks is answered, and the history is what was heard."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from llm_server import OBEYS, Obedient, completions
from module_services import service_of_module
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from openai.types.realtime.client_secret_create_response import ClientSecretCreateResponse
from pydantic import TypeAdapter
from service_process import Server, StartServer, free_port
from test_realtime_transcription import sound
from websockets.exceptions import ConnectionClosed, InvalidStatus

EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
RATE = 24_000
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
SOUND = "response.output_audio.delta"
LONG = (
    "So many words that it takes a while to say all of them, one behind the other, until the end."
)
LONGER = " ".join([LONG] * 9)
"""Most of it is not said yet, however late somebody looks."""
ITEM = ["conversation.item.added", "conversation.item.done"]
WORDS = "conversation.item.input_audio_transcription.delta"
HEARD = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    *ITEM,
    TRANSCRIBED,
]
BEGUN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
ENDED = [
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
ALOUD = [*BEGUN, "response.output_audio.done", "response.output_audio_transcript.done", *ENDED]
READ = [*BEGUN, "response.output_text.done", *ENDED]
MANUAL = {"audio": {"input": {"turn_detection": None}}}


class Caller:
    """Somebody at the other end, by the package. Every event that comes is one of its own."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.spoken_s = 0.0

    async def send(self, type: str, **fields: Any) -> None:
        await self.connection.send({"type": type, **fields})  # type: ignore[misc, arg-type]

    async def next(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.connection.recv_bytes())
        EVENTS.validate_python(event, strict=True)
        self.events.append(event)
        return event

    async def until(self, type: str) -> dict[str, Any]:
        """The next event of this type."""
        while (event := await self.next())["type"] != type:
            assert event["type"] != "error", event
        return event

    async def update(self, **session: Any) -> dict[str, Any]:
        await self.send("session.update", session={"type": "realtime", **session})
        found: dict[str, Any] = (await self.until("session.updated"))["session"]
        return found

    async def speak(self, raw: bytes, *, pace: bool = True) -> None:
        """As a microphone: as fast as time goes."""
        for at in range(0, len(raw), 4800):
            chunk = base64.b64encode(raw[at : at + 4800]).decode()
            self.spoken_s += len(raw[at : at + 4800]) / 2 / RATE
            await self.connection.input_audio_buffer.append(audio=chunk)
            # real time: the service waits for what is late (limit live_late)
            await asyncio.sleep(0.1 if pace else 0)

    async def say(self, text: str) -> None:
        """By keys."""
        part: Any = {"type": "input_text", "text": text}
        item: Any = {"type": "message", "role": "user", "content": [part]}
        await self.connection.conversation.item.create(item=item)

    async def response(self, **wish: Any) -> dict[str, Any]:
        """One that is asked for, once it is done."""
        await self.send("response.create", response=wish)
        found: dict[str, Any] = (await self.until("response.done"))["response"]
        return found

    async def answered(self, text: str, **wish: Any) -> dict[str, Any]:
        """What is said to ``text``: the response."""
        await self.say(text)
        return await self.response(**wish)

    async def response_begins(self) -> None:
        await self.send("response.create")
        await self.until(SOUND)

    async def truncate(self, item: str, end_ms: int) -> None:
        order = {"item_id": item, "content_index": 0, "audio_end_ms": end_ms}
        await self.send("conversation.item.truncate", **order)
        await self.until("conversation.item.truncated")

    async def delete(self, item: str) -> None:
        await self.send("conversation.item.delete", item_id=item)
        await self.until("conversation.item.deleted")

    async def retrieved(self, item: str) -> str:
        """How an item stands there."""
        await self.send("conversation.item.retrieve", item_id=item)
        content = (await self.until("conversation.item.retrieved"))["item"]["content"][0]
        return str(content.get("transcript") or content.get("text") or "")

    async def refused(self, type: str, **fields: Any) -> tuple[str, str | None]:
        """The code of the error that this comes to, and what is to blame."""
        await self.send(type, event_id="mine", **fields)
        while (event := await self.next())["type"] != "error":
            pass
        assert event["error"]["event_id"] == "mine"
        assert event["error"]["message"]
        return event["error"]["code"], event["error"]["param"]

    async def ended(self, *, keep: bool) -> tuple[list[str], dict[str, Any]]:
        """The end, which is an event of ours, and the codes of the errors before it."""
        await self.send("session.end", keep=keep)
        codes = []
        while True:
            event = json.loads(await self.connection.recv_bytes())
            if event["type"] == "session.ended":
                return codes, event
            codes += [event["error"]["code"]] if event["type"] == "error" else []

    def kinds(self) -> list[str]:
        """What came, in order, but for the deltas, of which there are as many as it likes."""
        types = [event["type"] for event in self.events]
        return [type for type in types if not type.endswith(".delta")]

    @property
    def sound(self) -> bytes:
        """All that came of it."""
        deltas = [event["delta"] for event in self.events if event["type"] == SOUND]
        return b"".join(map(base64.b64decode, deltas))

    def joined(self, type: str) -> str:
        return "".join(event["delta"] for event in self.events if event["type"] == type)


@contextlib.asynccontextmanager
async def calling(
    server: Server, model: str = "gpt-realtime", **query: str
) -> AsyncIterator[Caller]:
    base = f"http://127.0.0.1:{server.port}/v1"
    named: Any = {"model": model} if model else {}
    # All is read that comes: behind unread messages the service's close frame would not be seen,
    # and the package waits for it for ten seconds.
    unlimited: Any = {"max_queue": None}
    async with (
        AsyncOpenAI(base_url=base, api_key="x") as client,
        client.realtime.connect(
            **named, extra_query=query, websocket_connection_options=unlimited
        ) as connection,
    ):
        yield Caller(connection)


@contextlib.asynccontextmanager
async def alone(server: Server) -> AsyncIterator[Caller]:
    """The one who may talk, once whoever was there before is gone."""
    async with contextlib.AsyncExitStack() as stack:
        caller = None
        while caller is None:
            with contextlib.suppress(InvalidStatus):
                caller = await stack.enter_async_context(calling(server))
        await caller.until("session.created")
        yield caller


slow = service_of_module(voice_engine="scripted", scripted_say="0.3")
"""Its voice takes as long for a word as that sounds, and more; one conversation at a time."""


async def test_speech_is_answered_with_audio_and_all_events_in_openais_order(talks: Server) -> None:
    async with calling(talks) as caller:
        speaking = asyncio.create_task(caller.speak(sound(0, 0.3) + sound(0.3, 60)))
        await caller.until(WORDS)
        speaking.cancel()
        await asyncio.wait({speaking})
        spoken_s = caller.spoken_s - 0.3
        await caller.speak(sound(0, 0.8))
        done = (await caller.until("response.done"))["response"]
    assert caller.kinds() == ["session.created", "conversation.created", *HEARD, *ALOUD]
    said = next(one for one in caller.events if one["type"] == TRANSCRIBED)
    assert len(said["transcript"].split()) == pytest.approx(spoken_s / 0.25, abs=2)
    words = caller.joined(WORDS).split()
    assert words == said["transcript"].split()[: len(words)] != []
    assert said["usage"]["seconds"] == pytest.approx(0.3 + spoken_s, abs=0.3)
    (item,) = done["output"]
    transcript = item["content"][0]["transcript"]
    assert transcript.strip() == f"You said: {said['transcript']}"
    assert caller.joined("response.output_audio_transcript.delta") == transcript
    types = [one["type"] for one in caller.events]
    assert types.index("response.content_part.added") < types.index(SOUND)
    assert types.index(SOUND) < types.index("response.output_audio.done")
    assert types.count(SOUND) > 2, "as it is made"
    seconds = len(caller.sound) / 2 / RATE
    assert seconds == pytest.approx(sum(0.05 * len(w) + 0.05 for w in transcript.split()), abs=0.01)
    started, stopped = (one for one in caller.events if "_buffer.speech_" in one["type"])
    assert started["audio_start_ms"] == pytest.approx(200, abs=150)
    assert stopped["audio_end_ms"] == pytest.approx(350 + 1000 * spoken_s, abs=150)
    ids = [one["event_id"] for one in caller.events]
    assert len(set(ids)) == len(ids)
    places = [
        (one["previous_item_id"], one["item"]["id"])
        for one in caller.events
        if one["type"] == "conversation.item.done"
    ]
    assert places == [(None, said["item_id"]), (said["item_id"], item["id"])]


async def test_typed_text_is_answered_on_request_as_text_or_audio(talks: Server) -> None:
    async with calling(talks) as caller:
        done = await caller.answered("Hello.", output_modalities=["text"], metadata={"a": "b"})
        assert caller.kinds()[2:] == [*ITEM, *READ]
        assert (done["status"], done["metadata"]) == ("completed", {"a": "b"})
        assert (
            caller.joined("response.output_text.delta") == done["output"][0]["content"][0]["text"]
        )
        await caller.update(output_modalities=["text"])
        assert (await caller.answered("Again."))["output_modalities"] == ["text"]
        assert (await caller.answered("Aloud.", output_modalities=["audio"]))["output_modalities"]
        assert caller.kinds()[-len(ALOUD) :] == ALOUD


async def test_llm_gets_replies_as_truncated_no_deleted_items_and_the_new_instructions(
    start_server: StartServer,
) -> None:
    async with completions("torn", "plain") as llm:
        server = start_server(voice_engine="scripted", llm=llm.url)
        async with calling(server, model="plain") as caller:
            assert (await caller.until("session.created"))["session"]["model"] == "plain"
            await caller.update(instructions="Be brief.")
            first = (await caller.answered("Hello."))["output"][0]["id"]
            await caller.answered("I did not stop you.")
            second = caller.events[-1]["response"]["output"][0]["id"]
            await caller.truncate(second, 300)
            later = {"item_id": second, "content_index": 0, "audio_end_ms": 900}
            refused = await caller.refused("conversation.item.truncate", **later)
            assert refused == ("field_invalid", "audio_end_ms")
            await caller.say("What?")
            await caller.delete(first)
            assert await caller.refused("conversation.item.retrieve", item_id=first) == (
                "item_unknown",
                "item_id",
            )
            await caller.response(instructions="Be long.")
            assert (await caller.update(model="torn"))["model"] == "torn"
            await caller.answered("And now?")
    assert [body["model"] for body in llm.replies[-3:]] == ["plain", "plain", "torn"]
    told = [[(m["role"], m["content"]) for m in body["messages"]] for body in llm.replies[-3:-1]]
    assert told[0] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Good morning, Ada."),
        ("user", "I did not stop you."),
    ]
    assert told[1] == [
        ("system", "Be long."),
        ("user", "Hello. I did not stop you."),
        ("assistant", "Good…"),
        ("user", "What?"),
    ]


async def test_speech_over_a_response_cancels_it_and_is_answered_by_another(slow: Server) -> None:
    async with alone(slow) as caller:
        await caller.say(LONGER)
        await caller.response_begins()
        speaking = asyncio.create_task(caller.speak(sound(0.3, 1.2) + sound(0, 0.8)))
        done = (await caller.until("response.done"))["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
        assert done["output"][0]["status"] == "incomplete"
        await caller.until("input_audio_buffer.speech_started")
        item = done["output"][0]["id"]
        await caller.truncate(item, 150)
        assert await caller.retrieved(item) == "You…"
        await caller.until(TRANSCRIBED)
        assert (await caller.until("response.created"))["response"]["id"] != done["id"]
        await speaking


async def test_speech_that_the_engine_fails_to_recognize_is_a_failed_response(
    start_server: StartServer,
) -> None:
    server = start_server(voice_engine="scripted", scripted_hear="0.3", live_timeout=0.2)
    async with calling(server) as caller:
        await caller.speak(sound(0.3, 1) + sound(0, 2), pace=False)
        failed = await caller.until("conversation.item.input_audio_transcription.failed")
        assert failed["error"]["code"] == "engine_failed"
        done = (await caller.until("response.done"))["response"]
        assert done["status_details"]["error"]["code"] == "engine_failed"
        _, ended = await caller.ended(keep=False)
        warnings = ended["transcript"]["metadata"]["warnings"]
        assert [one["code"] for one in warnings] == ["recognition_failed"]


async def test_model_of_an_unreachable_llm_server_is_refused_and_accepted_once_it_is_back(
    start_server: StartServer,
) -> None:
    mind = Obedient()
    server = start_server(llm=mind.url)
    mind.go()
    with pytest.raises(InvalidStatus) as refused:
        async with calling(server, OBEYS):
            pass
    answer = refused.value.response
    assert (answer.status_code, json.loads(answer.body)["error"]["code"]) == (
        503,
        "llm_unreachable",
    )
    async with calling(server) as caller:
        while (await caller.next())["type"] != "error":
            pass  # the default model is there as well
        assert await caller.refused("session.update", session={"model": OBEYS}) == (
            "llm_unreachable",
            None,
        )
        mind.come()
        assert (await caller.update(model=OBEYS))["model"] == OBEYS
    mind.end()


async def test_second_conversation_or_response_is_refused_and_cancel_ends_a_response(
    slow: Server,
) -> None:
    async with alone(slow) as caller:
        with pytest.raises(InvalidStatus) as refused:
            async with calling(slow):
                pass
        answer = refused.value.response
        assert answer.status_code == 503
        assert json.loads(answer.body)["error"]["code"] == "talk_full"
        assert int(answer.headers["retry-after"]) > 0
        await caller.say(LONGER)
        await caller.response_begins()
        active = ("conversation_already_has_active_response", None)
        assert await caller.refused("response.create") == active
        await caller.send("response.cancel")
        done = (await caller.until("response.done"))["response"]
        assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert await caller.refused("response.cancel") == ("response_cancel_not_active", None)
        message = caller.events[-1]["error"]["message"]
        assert message.startswith("Cancellation failed"), "LiveKit and OpenAI's agents look for it"
        await caller.response_begins()
        await caller.send("output_audio_buffer.clear")
        await caller.until("output_audio_buffer.cleared")
        await caller.until("response.done")


async def test_without_turn_detection_a_commit_ends_a_turn_and_an_empty_one_is_refused(
    talks: Server,
) -> None:
    async with calling(talks) as caller:
        assert (await caller.update(**MANUAL))["audio"]["input"]["turn_detection"] is None
        empty = ("input_audio_buffer_commit_empty", None)
        assert await caller.refused("input_audio_buffer.commit") == empty
        for level in (0.2, 0.4):
            begun = len(caller.events)
            await caller.speak(sound(level, 0.8) + sound(0, 0.7) + sound(level, 0.8), pace=False)
            await caller.send("input_audio_buffer.commit")
            done = await caller.response()
            kinds = [event["type"] for event in caller.events[begun:]]
            assert kinds[:3] == ["input_audio_buffer.committed", *ITEM]
            assert kinds.index(TRANSCRIBED) < kinds.index("response.created")
            assert not [kind for kind in kinds if "speech" in kind]
            (said,) = [one for one in caller.events[begun:] if one["type"] == TRANSCRIBED]
            assert f"w{round(1000 * level) - 1}" in said["transcript"]
            assert done["output"][0]["content"][0]["transcript"].endswith(f"{said['transcript']} ")
        await caller.speak(sound(0, 0.5), pace=False)
        await caller.send("input_audio_buffer.commit")
        assert (await caller.until(TRANSCRIBED))["transcript"] == ""
        await caller.speak(sound(0.3, 1.0), pace=False)
        await caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
        assert await caller.refused("input_audio_buffer.commit") == empty


async def test_create_response_false_answers_only_on_request(talks: Server) -> None:
    silent = {"type": "server_vad", "silence_duration_ms": 300, "create_response": False}
    async with calling(talks) as caller:
        session = await caller.update(audio={"input": {"turn_detection": silent}})
        assert session["audio"]["input"]["turn_detection"] == {
            **silent,
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "idle_timeout_ms": None,
            "interrupt_response": True,
        }
        await caller.speak(sound(0.3, 0.6) + sound(0, 0.8), pace=False)
        await caller.until(TRANSCRIBED)
        done = await caller.response()
        assert "w299" in done["output"][0]["content"][0]["transcript"]
        assert caller.kinds().count("response.created") == 1


async def test_pcmu_output_has_one_byte_per_sample_at_8_khz(talks: Server) -> None:
    law = {"type": "audio/pcmu"}
    async with calling(talks) as caller:
        session = await caller.update(audio={"output": {"format": law, "voice": "high"}})
        assert session["audio"]["output"] == {"format": law, "voice": "high", "speed": 1.0}
        done = await caller.answered("Hello there.")
        assert done["audio"]["output"]["format"] == law
        words = done["output"][0]["content"][0]["transcript"].split()
        seconds = sum(0.05 * len(word) + 0.05 for word in words)
        assert len(caller.sound) / 8000 == pytest.approx(seconds, abs=0.05)


async def test_any_voice_name_is_accepted_for_a_speech_server_that_lists_none(
    start_server: StartServer,
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    server = start_server(voice_engine="speech", speech_url=nobody)
    async with calling(server) as caller:
        for voice in ("af_heart", "nova"):
            session = await caller.update(audio={"output": {"voice": voice}})
            assert session["audio"]["output"]["voice"] == voice


async def test_invalid_event_is_an_error_without_a_close_and_a_too_large_one_closes(
    talks: Server,
) -> None:
    voice = {"audio": {"output": {"voice": "x"}}}
    other = {"audio": {"output": {"voice": "high"}}}
    text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    wrong: list[tuple[str, dict[str, Any], str, str | None]] = [
        ("input_audio_buffer.append", {"audio": "A"}, "sound_invalid", "audio"),
        ("session.update", {"session": voice}, *VOICE),
        ("session.update", {"session": {"model": "none such"}}, "model_not_found", "model"),
        ("session.update", {"session": {"voice": "x"}}, *FIELD, "session.voice"),
        ("conversation.item.create", {"item": text, "previous_item_id": "item_0"}, *ITEM_UNKNOWN),
        ("conversation.item.delete", {"item_id": "item_0"}, *ITEM_UNKNOWN),
        (
            "response.create",
            {"response": {"conversation": "none"}},
            *FIELD,
            "response.conversation",
        ),
        ("response.create", {"response": {"input": []}}, *FIELD, "response.input"),
        ("response.create", {"response": {"modalities": ["text"]}}, *FIELD, "response.modalities"),
        ("response.create", {"response": voice}, *VOICE),
        ("response.create", {"response": other}, *FIELD, "response.audio.output"),
        ("output_audio_buffer.clear", {}, "response_cancel_not_active", None),
    ]
    async with calling(talks) as caller:
        for type, fields, code, param in wrong:
            assert await caller.refused(type, **fields) == (code, param), (type, fields)
        await caller.connection.send_raw("no json")
        assert (await caller.next())["error"]["code"] == "json_invalid"
        assert (await caller.answered("Still here?"))["status"] == "completed"
        await caller.send("input_audio_buffer.append", audio="A" * (4 << 20))
        with pytest.raises(ConnectionClosed) as closed:
            await caller.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


FIELD = ("field_invalid",)
VOICE = ("voice_unknown", "voice")
ITEM_UNKNOWN = ("item_unknown", "item_id")


async def test_ended_conversation_is_a_transcript_and_a_job_if_kept(talks: Server) -> None:
    for keep in (False, True):
        async with calling(talks) as caller:
            await caller.answered("Hello there.", output_modalities=["text"])
            codes, ended = await caller.ended(keep=keep)
            with pytest.raises(ConnectionClosed) as closed:
                await caller.next()
        assert closed.value.rcvd is not None
        assert (codes, closed.value.rcvd.code) == ([], 1000)
        text = ended["written"]["text"].splitlines()
        assert [line.partition("] ")[2] for line in text] == [
            "Speaker_0: Hello there.",
            "Machine (repeat): You said: Hello there.",
        ]
        assert "-->" in ended["written"]["srt"]
        jobs = talks.client.get("/v1/jobs").json()["jobs"]
        assert [(job["id"], job["state"]) for job in jobs] == [(ended["job"], "done")] * keep
    kept = talks.client.get(f"/v1/jobs/{ended['job']}/transcript").json()
    assert kept["segments"] == ended["transcript"]["segments"]
    talks.client.delete(f"/v1/jobs/{ended['job']}")


@pytest.mark.parametrize("keep", [False, True])
async def test_words_that_are_not_recognized_yet_when_a_conversation_is_ended_are_in_its_transcript(
    talks: Server, keep: bool
) -> None:
    async with calling(talks) as caller:
        await caller.speak(sound(0, 0.3) + sound(0.3, 4), pace=False)
        codes, ended = await caller.ended(keep=keep)
    (said,) = ended["transcript"]["segments"]
    assert (codes, said["speaker"]) == ([], "Speaker_0")
    assert len(said["text"].split()) == pytest.approx(4 / 0.25, abs=2)
    if keep:
        kept = talks.client.get(f"/v1/jobs/{ended['job']}/transcript").json()
        assert kept["segments"] == ended["transcript"]["segments"]
        talks.client.delete(f"/v1/jobs/{ended['job']}")


def test_v1_talk_lists_recognizer_llm_and_voices(talks: Server) -> None:
    parts = talks.client.get("/v1/talk").json()
    assert parts["hears"]["name"] == "scripted"
    assert parts["thinks"] == {"name": "repeat", "models": ["repeat"]}
    assert (parts["speaks"]["voices"], parts["speaks"]["voice"]) == (["low", "high"], "low")


async def test_connection_without_model_and_intent_becomes_a_conversation_only_before_audio(
    talks: Server,
) -> None:
    async with calling(talks, model="") as caller:
        assert (await caller.next())["session"]["type"] == "transcription"
        assert (await caller.update(instructions="Be brief."))["instructions"] == "Be brief."
        assert (await caller.answered("Hello."))["status"] == "completed"
    async with calling(talks, model="") as caller:
        await caller.speak(sound(0, 0.2), pace=False)
        talk = {"type": "realtime"}
        assert await caller.refused("session.update", session=talk) == (*FIELD, "session.type")
    async with calling(talks, intent="transcription") as caller:
        assert (await caller.next())["session"]["type"] == "transcription"
        assert await caller.refused("session.update", session=talk) == (*FIELD, "session.type")


async def test_client_secret_opens_the_agreed_conversation_whose_model_cannot_be_changed(
    talks: Server,
) -> None:
    base = f"http://127.0.0.1:{talks.port}/v1"
    agreed: Any = {"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}
    async with AsyncOpenAI(base_url=base, api_key="x") as client:
        given = await client.realtime.client_secrets.create(session=agreed)
        ClientSecretCreateResponse.model_validate(given.model_dump(), strict=True)
        unknown = {"session": {"type": "realtime", "model": "gpt-9"}}
        refused = talks.client.post("/v1/realtime/client_secrets", json=unknown)
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")
        nobody = {"session": {**agreed, "audio": {"output": {"voice": "nobody"}}}}
        refused = talks.client.post("/v1/realtime/client_secrets", json=nobody)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "voice")
    async with (
        AsyncOpenAI(base_url=base, api_key=given.value) as client,
        client.realtime.connect(extra_query={}) as connection,
    ):
        caller = Caller(connection)
        assert (await caller.next())["session"]["instructions"] == "Be brief."
        other = {"type": "realtime", "model": "repeat"}
        assert await caller.refused("session.update", session=other) == (*FIELD, "session.model")
        assert await caller.refused("session.end", keep=True) == (*FIELD, "keep")
        assert (await caller.ended(keep=False))[1]["job"] is None
