"""The events of a conversation over OpenAI's Realtime API, without a wire: orders read, what is
told in which order, and what a session means."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from many_cases import for_each
from openai.types.realtime import RealtimeServerEvent, RealtimeSessionCreateRequest
from pydantic import TypeAdapter

from sidecar import errors
from sidecar.audio import codecs
from sidecar.engines import scripted_engine
from sidecar.interfaces.engine_interface import SynthesisOptions
from sidecar.interfaces.live_options import LiveOptions
from sidecar.plugins.conversation.audio_pacing import ReplyAudioFrame
from sidecar.plugins.conversation.chat_completions import ChatRole
from sidecar.plugins.conversation.conversation_events import (
    CommitAcknowledged,
    ConversationError,
    ConversationOptions,
    ConversationOutput,
    DiscardAcknowledged,
    DropReplyAudio,
    EndOfTurnDelays,
    HistoryEntryRecorded,
    ReplyEnded,
    ReplyEnding,
    ReplyStarted,
    ReplyTextDelta,
    ReplyTruncated,
    TurnAudioSent,
    UserTurnDropped,
    UserTurnFinal,
    UserTurnPartial,
    UserTurnStarted,
    UserTurnStopped,
)
from sidecar.plugins.conversation.errors import CallUnknown, ReplyEmpty
from sidecar.plugins.openai.common import param_of
from sidecar.plugins.realtime.client_events import (
    RealtimeItemCreate,
    parse_event,
    read_command,
)
from sidecar.plugins.realtime.dialogue_config import (
    RealtimeDialogueConfig,
    updated_dialogue,
)
from sidecar.plugins.realtime.dialogue_events import RealtimeDialogueEvents
from sidecar.plugins.realtime.errors import CommitEmpty, EventUnsupported, ItemUnknown
from sidecar.plugins.realtime.server_events import RealtimeDialogueItem
from sidecar.plugins.realtime.session_config import (
    RealtimeAudioFormat,
    RealtimeSessionType,
    RealtimeTranscriptionConfig,
)

SPEC = scripted_engine.SPEC
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
USUAL = RealtimeDialogueConfig("gpt-realtime")
CLOCK = {"type": "function", "name": "clock"}
WEATHER = {"type": "function", "name": "weather"}


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.mark.parametrize(
    ("voice", "listed", "passed_on"),
    [("default", "", ""), ("nova", "", "nova"), ("af_heart", "af_heart", "af_heart")],
)
def test_voice_name_is_passed_on_if_the_tts_engine_lists_none(
    voice: str, listed: str, passed_on: str
) -> None:
    session = {"audio": {"output": {"voice": voice}}}
    for any_voice, said in ((False, listed), (True, passed_on)):
        before = dataclasses.replace(USUAL, any_voice=any_voice)
        found = updated_dialogue(before, session, scripted_engine.SPEC)
        assert found.synthesis(SynthesisOptions("mine")).voice == (said or "mine")


MANUAL = dataclasses.replace(USUAL, transcription=RealtimeTranscriptionConfig(detection=None))
DROPPED = errors.UtteranceDropped()
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
FAILED = "conversation.item.input_audio_transcription.failed"


class Told:
    """A conversation that is told by hand; utterance n lies from n to n + 0.5 s."""

    def __init__(self, config: RealtimeDialogueConfig = USUAL, most: int = 40) -> None:
        self.telling = RealtimeDialogueEvents("x", most, lambda number: (number, number + 0.5))
        self.telling.use(config)
        self.said: list[dict[str, Any]] = []

    def hear(self, *outs: ConversationOutput) -> None:
        for out in outs:
            self.say(list(self.telling.of(out)))

    def commit(self, received_s: float) -> None:
        self.say(list(self.telling.user_turns.commit(received_s)))

    def say(self, said: list[dict[str, Any]]) -> None:
        for one in said:
            EVENTS.validate_python({"event_id": "event_1", **one}, strict=True)
        self.said += said

    def of(self, type: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["type"] == type]

    def kinds(self) -> list[str]:
        return [one["type"].removeprefix("conversation.item.") for one in self.said]


def spoken(utterance: int, text: str, *, entry: int = 1) -> list[ConversationOutput]:
    """A turn of the person's, as it is told."""
    return [
        UserTurnStarted(utterance, 0.0),
        UserTurnStopped(1.0, utterance),
        UserTurnFinal(text, entry=entry),
    ]


def test_metadata_of_a_refused_response_is_not_that_of_the_next_one(told: Told) -> None:
    told.telling.responses.requested(0, {"metadata": {"of": "the refused one"}})
    told.hear(ConversationError(0, ReplyEmpty(), "mine"), *spoken(0, "Hello."), ReplyStarted(0))
    told.telling.responses.requested(1, {"metadata": {"of": "the second"}})
    told.hear(ConversationError(0, CallUnknown()), ReplyStarted(1))
    created = [one["response"]["metadata"] for one in told.of("response.created")]
    assert created == [None, {"of": "the second"}]


def test_item_of_a_commit_has_the_words_before_it_however_late_they_come() -> None:
    told = Told(MANUAL)
    told.commit(1.0)
    told.hear(UserTurnStarted(0, 0.0))
    told.commit(2.0)
    told.commit(3.0)
    told.hear(
        *spoken(0, "One.")[1:],
        CommitAcknowledged(),
        CommitAcknowledged(),
        *spoken(2, "Three."),
        CommitAcknowledged(),
    )
    committed = [one["item_id"] for one in told.of("input_audio_buffer.committed")]
    assert len(set(committed)) == 3
    words = {one["item_id"]: one["transcript"] for one in told.of(TRANSCRIBED)}
    assert words == dict(zip(committed, ("One.", "", "Three."), strict=True))
    assert [one for one in told.kinds() if "speech" in one] == []


def test_turn_begun_before_a_commit_becomes_its_item_and_an_empty_commit_is_refused() -> None:
    told = Told(MANUAL)
    told.hear(UserTurnStarted(0, 0.0), UserTurnPartial("One"), UserTurnPartial("One two"))
    assert told.said == []
    told.commit(1.0)
    told.hear(UserTurnStopped(1.0, 0), UserTurnFinal("One two.", entry=7), CommitAcknowledged())
    assert len(told.of("input_audio_buffer.committed")) == 1
    (done,) = told.of(TRANSCRIBED)
    assert told.telling.items.find(done["item_id"]).entry == 7
    with pytest.raises(CommitEmpty):
        told.telling.user_turns.commit(1.05)
    told.telling.user_turns.clear(9.0)
    with pytest.raises(CommitEmpty):
        told.telling.user_turns.commit(9.05)


def test_commit_after_a_deleted_item_is_a_new_item() -> None:
    told = Told(MANUAL)
    told.hear(UserTurnStarted(0, 0.0))
    told.commit(1.0)
    told.telling.items.drop(told.telling.items.find("item_x_0"))
    told.commit(2.0)
    told.hear(UserTurnFinal("One.", entry=1), CommitAcknowledged())
    told.hear(*spoken(1, "Two.", entry=2), CommitAcknowledged())
    assert {one["item_id"] for one in told.of("input_audio_buffer.committed")[:2]} == {
        "item_x_0",
        "item_x_1",
    }
    words = [(one["item_id"], one["transcript"]) for one in told.of(TRANSCRIBED)]
    assert words == [("item_x_0", "One."), ("item_x_1", "Two.")]


def test_words_that_two_partials_share_are_sent_as_deltas_and_not_taken_back(told: Told) -> None:
    looks = ["I", "I scream", "I scream for", "Ice cream for all."]
    told.hear(UserTurnStarted(3, 0.0), *(UserTurnPartial(look) for look in looks))
    told.hear(UserTurnStopped(1.0, 3), UserTurnFinal("Ice cream for all."))
    deltas = [one["delta"] for one in told.said if one["type"].endswith("transcription.delta")]
    assert deltas == ["I", " scream"]
    assert told.of(TRANSCRIBED)[0]["transcript"] == "Ice cream for all."
    assert told.of(TRANSCRIBED)[0]["usage"] == {"type": "duration", "seconds": 0.5}
    assert told.of("input_audio_buffer.speech_started")[0]["audio_start_ms"] == 3000
    assert told.of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"] == 3500


def test_final_words_after_a_failed_turn_are_sent_whole_as_a_delta(told: Told) -> None:
    told.hear(
        UserTurnStarted(0, 0.0),
        UserTurnPartial("One"),
        UserTurnPartial("One two"),
        UserTurnStopped(1.0, 0, DROPPED),
        ReplyStarted(1),
    )
    told.hear(UserTurnFinal("One two.", entry=1))
    deltas = [one["delta"] for one in told.said if one["type"].endswith("transcription.delta")]
    assert deltas == ["One", "One two."]
    assert told.of(TRANSCRIBED)[0]["transcript"] == "One two."


def test_backchannel_is_an_item_with_its_words_and_duration(told: Told) -> None:
    told.hear(*spoken(3, "What now?"))
    told.hear(
        UserTurnStarted(4, 0.0),
        UserTurnPartial("yes or"),
        UserTurnPartial("yes or"),
        UserTurnDropped(),
    )
    told.hear(UserTurnFinal("yeah", entry=2, backchannel=(7.0, 7.25)))
    deltas = [one["delta"] for one in told.said if one["type"].endswith("transcription.delta")]
    assert deltas == ["What now?", "yes or", "yeah"]
    assert [one["usage"]["seconds"] for one in told.of(TRANSCRIBED)] == [0.5, 0.25]


def test_noise_has_speech_stopped_and_no_item(told: Told) -> None:
    told.hear(UserTurnStarted(0, 0.0), UserTurnDropped(), DiscardAcknowledged())
    assert told.kinds() == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.cleared",
    ]
    assert told.telling.items.last is None


def test_failed_turn_of_a_commit_is_transcription_failed_and_an_error_without_a_response() -> None:
    told = Told(MANUAL)
    told.commit(1.0)
    told.hear(
        UserTurnStarted(0, 0.0),
        UserTurnStopped(1.0, 0, DROPPED),
        ConversationError(0, DROPPED),
        UserTurnDropped(),
        CommitAcknowledged(),
    )
    assert told.kinds()[-2:] == [FAILED.removeprefix("conversation.item."), "error"]


def test_response_during_speech_leaves_the_item_of_the_speech_open(told: Told) -> None:
    told.hear(UserTurnStarted(0, 0.0), ReplyStarted(1), *spoken(0, "One.")[1:])
    (started,) = told.of("input_audio_buffer.speech_started")
    assert told.of(TRANSCRIBED)[0]["item_id"] == started["item_id"]


def test_unrecognized_turn_is_transcription_failed_before_its_response(told: Told) -> None:
    told.hear(UserTurnStarted(0, 0.0), UserTurnStopped(1.0, 0, DROPPED), ReplyStarted(1))
    assert told.kinds()[-2:] == [FAILED.removeprefix("conversation.item."), "response.created"]
    assert told.of(FAILED)[0]["error"]["code"] == DROPPED.code


def test_without_transcription_its_events_are_not_sent_and_the_item_keeps_its_words() -> None:
    told = Told(
        dataclasses.replace(USUAL, transcription=RealtimeTranscriptionConfig(transcribes=False))
    )
    told.hear(
        UserTurnStarted(0, 0.0),
        UserTurnPartial("A"),
        UserTurnPartial("A b"),
        *spoken(0, "A b.")[1:],
    )
    assert [one for one in told.kinds() if "transcription" in one] == []
    assert told.said[-1]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert told.telling.items.find(told.said[-1]["item"]["id"]).text == "A b."


@pytest.mark.parametrize(
    ("ending", "status", "reason"),
    [
        (ReplyEnding.COMPLETED, "completed", {}),
        (ReplyEnding.INTERRUPTED, "cancelled", {"reason": "turn_detected"}),
        (ReplyEnding.LIMITED, "incomplete", {"reason": "max_output_tokens"}),
        (ReplyEnding.FAILED, "failed", None),
    ],
)
@pytest.mark.parametrize("sent_first", [True, False])
def test_response_is_done_once_with_the_status_of_its_ending(
    ending: ReplyEnding, status: str, reason: dict[str, str] | None, sent_first: bool, told: Told
) -> None:
    told.hear(ReplyStarted(1, entry=4), ReplyTextDelta(1, "One two."))
    told.hear(ReplyAudioFrame(1, bytes(480), 24_000, 0.0))
    if ending is ReplyEnding.FAILED:
        told.hear(ConversationError(1, errors.EngineFailed()))
    if sent_first:
        told.hear(TurnAudioSent(1, ending))
    told.hear(DropReplyAudio(1), ReplyEnded(1, ending, "One…", 0.4), ReplyTextDelta(2, "late"))
    (done,) = told.of("response.done")
    assert done["response"]["status"] == status
    details = done["response"]["status_details"]
    if reason is None:
        assert details["error"]["code"] == "engine_failed"
    else:
        assert details == {"type": status, **reason}
    whole = ending is ReplyEnding.COMPLETED
    assert done["response"]["output"][0]["status"] == ("completed" if whole else "incomplete")
    assert done["response"]["output"][0]["content"][0]["transcript"] == "One two."
    stands = told.telling.items.find(done["response"]["output"][0]["id"])
    assert (stands.text, stands.entry) == ("One…", 4)
    told.hear(ReplyTruncated(1, 0.01, "One…"), ReplyTruncated(9, 0.01, ""))
    assert [one["audio_end_ms"] for one in told.of("conversation.item.truncated")] == [10]
    assert stands.sent_s == 0.01


def test_response_without_output_has_no_item(told: Told) -> None:
    told.hear(ReplyStarted(1), ConversationError(1, errors.EngineFailed()))
    told.hear(ReplyEnded(1, ReplyEnding.FAILED, "", 0))
    assert told.kinds() == ["response.created", "response.done"]
    assert told.said[-1]["response"]["output"] == []


def test_item_names_are_unique_and_the_oldest_are_dropped() -> None:
    told = Told(most=3)
    for number in range(5):
        told.telling.create(RealtimeDialogueItem(f"mine_{number}", ChatRole.USER))
        with pytest.raises(errors.FieldInvalid, match="is in use"):
            told.telling.create(RealtimeDialogueItem(f"mine_{number}", ChatRole.USER))
        told.hear(HistoryEntryRecorded(number + 1, ChatRole.USER, "Hello.", f"mine_{number}"))
        with pytest.raises(errors.FieldInvalid, match="is in use"):
            told.telling.create(RealtimeDialogueItem(f"mine_{number}", ChatRole.USER))
    with pytest.raises(ItemUnknown):
        told.telling.items.find("mine_1")
    newest = told.telling.items.find("mine_4")
    assert newest.entry == 5
    told.telling.items.drop(newest)
    assert told.telling.items.last == "mine_3"


def test_system_item_at_the_beginning_of_a_full_list_is_not_dropped() -> None:
    items = Told(most=3).telling.items
    items.add(RealtimeDialogueItem("rules", ChatRole.SYSTEM))
    for number in range(4):
        items.add(RealtimeDialogueItem(f"mine_{number}", ChatRole.USER))
    assert [name for name in ("rules", "mine_1", "mine_2", "mine_3") if name in items] == [
        *("rules", "mine_2", "mine_3")
    ]


@pytest.mark.parametrize("role", [ChatRole.USER, ChatRole.SYSTEM])
def test_previous_item_is_named_even_if_no_item_is_kept(role: ChatRole) -> None:
    items = Told(most=0).telling.items
    told = [items.add(RealtimeDialogueItem(f"item_{n}", role)) for n in range(3)]
    assert told == [None, "item_0", "item_1"]
    assert "item_2" not in items


def test_session_fields_become_options_of_the_conversation_and_are_shown() -> None:
    wish = {
        "type": "realtime",
        "instructions": "Be brief.",
        "output_modalities": ["audio"],
        "tools": [],
        "audio": {
            "input": {
                "format": {"type": "audio/pcma"},
                "transcription": {"model": "whisper-1", "language": "de"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.7,
                    "prefix_padding_ms": 200,
                    "silence_duration_ms": 50,
                    "interrupt_response": False,
                },
            },
            "output": {"format": {"type": "audio/pcmu"}, "voice": {"id": "low"}, "speed": 1.5},
        },
    }
    found = updated_dialogue(USUAL, wish, SPEC)
    options = found.options(ConversationOptions())
    assert options == ConversationOptions(
        instructions="Be brief.", delays=EndOfTurnDelays(0.2, 0.2, 0.2), interruptible=False
    )
    hearing = found.live_options(LiveOptions())
    assert (hearing.language, hearing.endpointing.threshold) == ("de", 0.7)
    assert hearing.endpointing.pre_roll_s == 0.2
    manner = found.synthesis(SynthesisOptions("usual"))
    assert manner == SynthesisOptions("low", speed=1.5, rate=8000)
    assert found.synthesis(SynthesisOptions("usual")).voice == "low"
    assert updated_dialogue(found, {"audio": {"output": {"voice": "ash"}}}, SPEC).synthesis(
        SynthesisOptions("usual")
    ) == SynthesisOptions("usual", speed=1.5, rate=8000)
    view = found.view("sess_1", 9)
    RealtimeSessionCreateRequest.model_validate(view, strict=True)
    assert view["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 200
    off = updated_dialogue(
        found, {"audio": {"input": {"turn_detection": None, "transcription": None}}}, SPEC
    )
    manual = off.options(ConversationOptions())
    assert not any((manual.ends_turns, manual.answers, manual.interruptible))
    assert off.view("sess_1", 9)["audio"]["input"]["transcription"] is None
    semantic = {"type": "semantic_vad", "eagerness": "low", "create_response": False}
    slow = updated_dialogue(USUAL, {"audio": {"input": {"turn_detection": semantic}}}, SPEC)
    assert slow.options(ConversationOptions()).delays == EndOfTurnDelays(scale=2.0)
    assert slow.view("sess_1", 9)["audio"]["input"]["turn_detection"]["create_response"] is False


def test_tool_choice_of_a_removed_tool_becomes_auto() -> None:
    tools = {"tools": [WEATHER, CLOCK], "tool_choice": CLOCK}
    chosen = updated_dialogue(USUAL, tools, SPEC)
    assert chosen.view("sess_1", 9)["tool_choice"] == CLOCK
    fewer = updated_dialogue(chosen, {"tools": [WEATHER]}, SPEC).view("sess_1", 9)
    assert (fewer["tool_choice"], [one["name"] for one in fewer["tools"]]) == ("auto", ["weather"])
    assert updated_dialogue(chosen, {"tools": []}, SPEC).view("sess_1", 9)["tools"] == []


def test_null_fields_leave_a_session_as_it_is() -> None:
    heard = {"language": "en", "prompt": "Ada", "model": "gpt-4o-transcribe"}
    audio = {"input": {"transcription": heard}}
    wish = {"instructions": "Be brief.", "tools": [WEATHER], "audio": audio}
    before = updated_dialogue(USUAL, wish, SPEC)
    names = ("type", "instructions", "tools", "tool_choice", "output_modalities", "modalities")
    audio = {"input": {"transcription": dict.fromkeys(heard), "format": None}, "output": None}
    assert updated_dialogue(before, {**dict.fromkeys(names), "audio": audio}, SPEC) == before


def test_without_a_tts_engine_responses_are_text() -> None:
    mute = dataclasses.replace(USUAL, speaks=False)
    found = updated_dialogue(mute, {"output_modalities": ["audio"]}, SPEC)
    assert found.view("x", 0)["output_modalities"] == ["text"]
    assert not found.options(ConversationOptions()).voiced


@pytest.mark.parametrize(
    ("session", "name"),
    [
        (7, "session"),
        ({"type": "transcription"}, "session.type"),
        ({"instructions": 7}, "session.instructions"),
        ({"instructions": "x" * 20_000}, "session.instructions"),
        ({"output_modalities": ["audio", "text"]}, "session.output_modalities"),
        ({"tools": 7}, "session.tools"),
        ({"tools": [{**CLOCK, "type": "mcp"}]}, "session.tools"),
        ({"tools": [{**CLOCK, "name": "a b"}]}, "session.tools"),
        ({"tools": [CLOCK, CLOCK]}, "session.tools"),
        ({"tools": [{**CLOCK, "parameters": "x"}]}, "session.tools.parameters"),
        ({"tools": [{**CLOCK, "description": "x" * 70_000}]}, "session.tools"),
        ({"tools": [CLOCK], "tool_choice": {**CLOCK, "name": "x"}}, "session.tool_choice"),
        ({"tool_choice": "sometimes"}, "session.tool_choice"),
        ({"modalities": ["text", "audio"]}, "session.modalities"),
        ({"turn_detection": {}}, "session.turn_detection"),
        ({"audio": 7}, "session.audio"),
        ({"audio": {"input": {"turn_detection": {"type": "x"}}}}, "turn_detection.type"),
        ({"audio": {"input": {"turn_detection": {"threshold": 2}}}}, "turn_detection.threshold"),
        ({"audio": {"output": {"format": {"rate": 8000}}}}, "session.audio.output.format.rate"),
        ({"audio": {"output": {"format": {"rate": 7}}}}, "session.audio.output.format.rate"),
        ({"audio": {"output": {"format": {"type": "x"}}}}, "session.audio.output.format.type"),
        ({"audio": {"output": {"voice": 7}}}, "session.audio.output.voice"),
        ({"audio": {"output": {"speed": 0.1}}}, "session.audio.output.speed"),
    ],
)
def test_invalid_session_is_refused_with_the_name_of_the_field(session: Any, name: str) -> None:
    with pytest.raises(errors.FieldInvalid, match=name):
        updated_dialogue(USUAL, session, SPEC)


def test_item_create_and_truncate_events_are_parsed_to_commands() -> None:
    part = {"type": "output_text", "text": " Hello. "}
    item = {"type": "message", "role": "assistant", "id": "mine", "content": [part, part]}
    event = {"type": "conversation.item.create", "event_id": "e", "item": item}
    assert parse_event(json.dumps(event)) == (event, "e")
    created = RealtimeItemCreate(ChatRole.ASSISTANT, "Hello.   Hello.", "mine")
    assert read_command(event, RealtimeSessionType.CONVERSATION).value == created
    cut = read_command(CUT, RealtimeSessionType.CONVERSATION)
    assert cut == ("conversation.item.truncate", ("mine", 20))


CUT = {"type": "conversation.item.truncate", "item_id": "mine", "audio_end_ms": 20}
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
OUTPUT = {"type": "function_call_output", "call_id": "call_a", "output": "x"}


def created(item: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": {**item, **more}}


@for_each(
    "case",
    [
        ({"type": 7}, "field_missing", "type"),
        ({"type": "input_audio_buffer.append"}, "field_missing", "audio"),
        ({"type": "session.end", "keep": "x"}, "field_invalid", "keep"),
        ({"type": "response.create", "response": 7}, "field_invalid", "response"),
        ({"type": "conversation.item.retrieve"}, "field_missing", "item_id"),
        ({**CUT, "content_index": 1}, "field_invalid", "content_index"),
        ({**CUT, "audio_end_ms": None}, "field_missing", "audio_end_ms"),
        ({**CUT, "audio_end_ms": -1}, "field_invalid", "audio_end_ms"),
        ({**CUT, "item_id": 7}, "field_invalid", "item_id"),
        ({**CUT, "item_id": "x" * 99}, "field_invalid", "item_id"),
        ({"type": "conversation.item.create"}, "field_invalid", "item"),
        (created(MESSAGE, type="item_reference"), "field_invalid", "item.type"),
        (created(MESSAGE, content=[]), "field_invalid", "item.content"),
        (
            created(MESSAGE, content=[{"type": "input_text", "text": " "}]),
            "field_invalid",
            "item.content",
        ),
        (created(MESSAGE, role="assistant"), "field_invalid", "item.content"),
        (created(MESSAGE, role="x"), "field_invalid", "item.role"),
        (created(OUTPUT, output=None), "field_missing", "item.output"),
        (created(OUTPUT, output=7), "field_invalid", "item.output"),
        (created(OUTPUT, output="x" * 40_000), "field_invalid", "item.output"),
        (created(OUTPUT, call_id=None), "field_missing", "item.call_id"),
        (created(OUTPUT, type="function_call"), "field_missing", "item.name"),
    ],
)
def test_invalid_event_is_refused_with_the_name_of_the_field(
    case: tuple[dict[str, Any], str, str | None],
) -> None:
    event, code, param = case
    with pytest.raises(errors.SidecarError) as refused:
        read_command(event, RealtimeSessionType.CONVERSATION)
    error = refused.value
    assert (error.code, param_of(error)) == (code, param)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (RealtimeSessionType.CONVERSATION, "transcription_session.update"),
        (RealtimeSessionType.TRANSCRIPTION, "conversation.item.create"),
        (RealtimeSessionType.TRANSCRIPTION, "output_audio_buffer.clear"),
    ],
)
def test_session_type_refuses_events_of_the_other_and_names_its_own(
    kind: RealtimeSessionType, name: str
) -> None:
    with pytest.raises(EventUnsupported) as refused:
        read_command({"type": name}, kind)
    assert "input_audio_buffer.clear" in refused.value.hint
    assert name not in refused.value.hint


@pytest.mark.parametrize("law", [RealtimeAudioFormat.MU_LAW, RealtimeAudioFormat.A_LAW])
def test_g711_encoding_picks_the_nearest_level(law: RealtimeAudioFormat) -> None:
    to, back = {
        RealtimeAudioFormat.MU_LAW: (codecs.encode_mu_law, codecs.decode_mu_law),
        RealtimeAudioFormat.A_LAW: (codecs.encode_a_law, codecs.decode_a_law),
    }[law]
    there = sorted(
        int.from_bytes(back(bytes([byte])), "little", signed=True) for byte in range(256)
    )
    for sample in range(-32768, 32768, 97):
        found = int.from_bytes(
            back(to(sample.to_bytes(2, "little", signed=True))), "little", signed=True
        )
        assert abs(found - sample) == min(abs(one - sample) for one in there)
