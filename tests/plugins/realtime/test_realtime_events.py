"""OpenAI's Realtime events, read and written: every form of theirs, without a wire."""

import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from openai.types.beta.realtime import (
    ConversationItemCreatedEvent,
    TranscriptionSessionUpdatedEvent,
)
from openai.types.realtime import RealtimeServerEvent, RealtimeTranscriptionSessionCreateResponse
from pydantic import BaseModel, TypeAdapter

from sidecar import errors
from sidecar.audio import codecs
from sidecar.engines import scripted_engine
from sidecar.engines.moonshine import SPEC as MOONSHINE
from sidecar.interfaces.live_events import (
    RECOGNITION_FAILED,
    Final,
    LiveEvent,
    NoticeRaised,
    Partial,
    SpeakersRevised,
    SpeechStarted,
    SpeechStopped,
    TurnDropped,
    TurnEnded,
)
from sidecar.interfaces.live_options import ALL_AUDIO, LiveOptions, TurnControl
from sidecar.plugins.realtime import server_events
from sidecar.plugins.realtime.client_events import parse_event, read_command
from sidecar.plugins.realtime.errors import CommitEmpty
from sidecar.plugins.realtime.server_events import RealtimeTranscriptionTurns
from sidecar.plugins.realtime.session_config import (
    RealtimeSessionType,
    RealtimeTranscriptionConfig,
    RealtimeTurnDetection,
    check_model,
    updated_transcription,
)
from sidecar.transcripts.transcript import Notice, Segment, join_texts

SPEC = scripted_engine.SPEC
USUAL = RealtimeTranscriptionConfig()
EVENTS: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def check(said: dict[str, Any]) -> None:
    """An event is one of the SDK's own, and every field of it is known there."""
    found = EVENTS.validate_python({"event_id": "event_1", **said}, strict=True)
    assert found.type == said["type"]
    if "session" not in said:
        assert not strange(found), said


def strange(model: object) -> list[str]:
    """Fields that the SDK's types do not have."""
    if isinstance(model, list):
        return [name for one in model for name in strange(one)]
    if not isinstance(model, BaseModel):
        return []
    fields = [getattr(model, name) for name in type(model).model_fields]
    return [*(model.model_extra or {}), *strange(fields)]


def transcribes(**wish: object) -> dict[str, Any]:
    """A session in the beta's words."""
    return {"input_audio_transcription": wish}


def final(turn: int, piece: int, text: str, speaker: int | None = None) -> Final:
    return Final(turn, piece, Segment(piece, piece + 1.0, text, speaker), "en")


def tell(items: RealtimeTranscriptionTurns, *events: LiveEvent) -> list[dict[str, Any]]:
    said = [one for event in events for one in items.events_of(event)]
    for one in said:
        check(one)
    return said


def types(said: Iterable[dict[str, Any]]) -> list[str]:
    parts = "input_audio_buffer.", "conversation.item.input_audio_transcription."
    return [one["type"].removeprefix(parts[0]).removeprefix(parts[1]) for one in said]


def deltas(said: Iterable[dict[str, Any]]) -> str:
    return "".join(one.get("delta", "") for one in said)


@pytest.mark.parametrize(
    ("event", "value"),
    [
        ({"type": "input_audio_buffer.commit"}, None),
        ({"type": "input_audio_buffer.clear", "event_id": 5}, None),
        ({"type": "input_audio_buffer.append", "audio": "AAE="}, b"\0\1"),
        ({"type": "input_audio_buffer.append", "audio": "A\r\nAE"}, b"\0\1"),
        ({"type": "session.update", "session": {}}, {}),
        ({"type": "transcription_session.update", "session": 1}, 1),
    ],
)
def test_client_events_are_parsed_to_commands(event: dict[str, Any], value: object) -> None:
    assert read_command(event, RealtimeSessionType.TRANSCRIPTION) == (event["type"], value)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "json_invalid"),
        ("[]", "json_invalid"),
        (b"\xff\0", "json_invalid"),
        ("[" * 100_000, "json_invalid"),
        (r'{"type": "session.update", "event_id": "\ud800"}', "json_invalid"),
        ('{"event_id": "mine"}', "field_missing"),
        ('{"type": "response.create"}', "event_unsupported"),
        ('{"type": ["session.update"]}', "field_missing"),
        ('{"type": "input_audio_buffer.append"}', "field_missing"),
        ('{"type": "input_audio_buffer.append", "audio": "A"}', "sound_invalid"),
        ('{"type": "input_audio_buffer.append", "audio": "ÄÄÄÄ"}', "sound_invalid"),
    ],
)
def test_invalid_message_is_refused_with_its_code(message: str | bytes, code: str) -> None:
    with pytest.raises(errors.SidecarError) as refused:
        read_command(parse_event(message)[0], RealtimeSessionType.TRANSCRIPTION)
    assert refused.value.code == code


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_random_message_is_a_command_or_a_valid_error_event(message: str | bytes) -> None:
    event_id = None
    try:
        event, event_id = parse_event(message)
        read_command(event, RealtimeSessionType.TRANSCRIPTION)
    except errors.SidecarError as refused:
        check(server_events.error_event(refused, event_id))


def test_beta_and_current_session_fields_mean_the_same() -> None:
    vad = {
        "type": "server_vad",
        "threshold": 0.4,
        "prefix_padding_ms": 100,
        "silence_duration_ms": 700,
    }
    transcription = {"model": "whisper-1", "language": "en", "prompt": "names"}
    today = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": transcription,
                "turn_detection": vad,
                "noise_reduction": {"type": "near_field"},
            }
        },
        "include": ["item.input_audio_transcription.logprobs"],
    }
    beta = {
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": transcription,
        "turn_detection": vad,
        "input_audio_noise_reduction": {"type": "far_field"},
    }
    found = updated_transcription(USUAL, today, SPEC)
    assert found == updated_transcription(USUAL, beta, SPEC)
    assert found.view("sess_1", 9)["audio"]["input"] == {
        "format": {"type": "audio/pcmu"},
        "transcription": transcription,
        "noise_reduction": None,
        "turn_detection": vad,
    }
    assert found.beta_view("sess_1", 9)["input_audio_format"] == "g711_ulaw"
    options = found.options(LiveOptions(client="me"))
    assert (options.client, options.language, options.prompt) == ("me", "en", "names")
    assert (options.turns, options.endpointing.silence_s) == (TurnControl.SILENCE, 0.7)
    assert (options.endpointing.pre_roll_s, options.endpointing.threshold) == (0.1, 0.4)


def detection(threshold: float, padding_ms: int, silence_ms: int) -> RealtimeTurnDetection:
    return RealtimeTurnDetection(threshold=threshold, padding_ms=padding_ms, silence_ms=silence_ms)


def test_session_update_changes_only_the_given_fields() -> None:
    before = RealtimeTranscriptionConfig(
        model="whisper-1", prompt="names", detection=detection(0.3, 50, 90)
    )
    assert updated_transcription(before, {}, SPEC) == before
    nothing = {"transcription": {"model": None, "prompt": None}, "format": None}
    for null in ({"type": None, "audio": {"input": nothing}}, {"audio": []}):
        assert updated_transcription(before, null, SPEC) == before
    given = {"audio": {"input": {"turn_detection": {"threshold": 0.6}}}}
    assert updated_transcription(before, given, SPEC) == replace(
        before, detection=detection(0.6, 50, 90)
    )
    off = updated_transcription(before, {"audio": {"input": {"turn_detection": None}}}, SPEC)
    assert off == replace(before, detection=None)
    options = off.options(LiveOptions())
    assert (options.turns, options.endpointing) == (TurnControl.CLIENT, ALL_AUDIO)
    on = {"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}}}
    assert updated_transcription(off, on, SPEC).detection == RealtimeTurnDetection(silence_ms=300)


@pytest.mark.parametrize("threshold", [0.01, 0.15, 0.5, 0.9])
def test_threshold_for_the_end_of_speech_is_below_any_given_threshold_for_its_start(
    threshold: float,
) -> None:
    given = {"turn_detection": {"threshold": threshold}}
    found = updated_transcription(USUAL, given, SPEC).options(LiveOptions()).endpointing
    assert found.threshold == threshold
    assert 0 < found.neg_threshold < threshold <= found.sure_threshold


def test_diarize_model_turns_on_diarization() -> None:
    found = updated_transcription(USUAL, transcribes(model="gpt-4o-transcribe-diarize"), SPEC)
    assert found.options(LiveOptions()).diarize
    assert not USUAL.options(LiveOptions()).diarize


INPUT = "session.audio.input"
SLOW = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 100}}}}


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        (None, "field_invalid", "session"),
        ({"type": "realtime"}, "field_invalid", "session.type"),
        ({"audio": 1}, "field_invalid", "session.audio"),
        ({"audio": {"input": "x"}}, "field_invalid", INPUT),
        ({"input_audio_format": ["pcm16"]}, "field_invalid", "session.input_audio_format"),
        ({"input_audio_format": "mp3"}, "field_invalid", "session.input_audio_format"),
        (transcribes(model="gpt-9"), "model_not_found", "model"),
        (transcribes(language="e"), "language_invalid", "language"),
        (transcribes(keywords="x"), "field_invalid", f"{INPUT}.transcription.keywords"),
        (SLOW, "field_invalid", f"{INPUT}.format.rate"),
        (
            {"turn_detection": {"threshold": 2}},
            "field_invalid",
            f"{INPUT}.turn_detection.threshold",
        ),
        ({"turn_detection": {"type": "none"}}, "field_invalid", f"{INPUT}.turn_detection.type"),
    ],
)
def test_invalid_session_is_refused_with_the_name_of_the_field(
    given: object, code: str, param: str
) -> None:
    with pytest.raises(errors.SidecarError) as refused:
        updated_transcription(USUAL, given, SPEC)
    assert refused.value.code == code
    said = server_events.error_event(refused.value, "mine")
    check(said)
    assert (said["error"]["param"], said["error"]["event_id"]) == (param, "mine")


def test_language_that_the_engine_lacks_is_refused_and_of_several_the_supported_is_taken() -> None:
    with pytest.raises(errors.LanguageUnsupported):
        updated_transcription(USUAL, transcribes(language="de"), MOONSHINE)
    several = transcribes(languages=["de", "english"])
    assert updated_transcription(USUAL, several, MOONSHINE).language == "en"


def test_transcription_model_names_are_accepted_and_others_refused() -> None:
    for name in ("", "scripted", "gpt-realtime-whisper", "gpt-4o-transcribe"):
        assert check_model(name, SPEC) == name
    with pytest.raises(errors.ModelNotFound):
        check_model("gpt-realtime", SPEC)


@given(
    st.sampled_from([None, 0, 0.01, 0.5, 1.0]),
    st.sampled_from([None, 0, 3_000]),
    st.sampled_from([None, 1, 200, 60_000]),
)
def test_session_of_any_valid_turn_detection_is_accepted_by_openais_types(
    threshold: float | None, padding: int | None, silence: int | None
) -> None:
    detection = {
        "threshold": threshold,
        "prefix_padding_ms": padding,
        "silence_duration_ms": silence,
    }
    found = updated_transcription(USUAL, {"turn_detection": detection}, SPEC)
    assert found.options(LiveOptions()).turns is TurnControl.SILENCE
    view = found.view("sess_1", 1)
    RealtimeTranscriptionSessionCreateResponse.model_validate(view, strict=True)
    check({"type": "session.updated", "session": view})
    beta = found.beta_view("sess_1", 1) | {"client_secret": {"value": "", "expires_at": 0}}
    TranscriptionSessionUpdatedEvent.model_validate(
        {"type": "transcription_session.updated", "event_id": "event_1", "session": beta},
        strict=True,
    )


@pytest.mark.parametrize(
    ("expand", "subtype"), [(codecs.decode_mu_law, "ULAW"), (codecs.decode_a_law, "ALAW")]
)
def test_g711_decoding_equals_libsndfile(expand: Any, subtype: str) -> None:
    every = bytes(range(256))
    options = {"channels": 1, "samplerate": 8000, "format": "RAW", "subtype": subtype}
    theirs, _ = soundfile.read(io.BytesIO(every), dtype="int16", **options)
    assert expand(every) == theirs.astype("<i2").tobytes()


def test_turn_that_a_pause_ends_is_an_item_with_all_its_events() -> None:
    items = RealtimeTranscriptionTurns("x")
    said = tell(
        items,
        SpeechStarted(0, 0.5),
        Partial(0, 0, 0.5, 1.5, "one two", ""),
        Partial(0, 0, 0.5, 2.5, "one two", "one two", "thr"),
        SpeechStopped(0, 3.25),
        final(0, 0, "one two three."),
        TurnEnded(0, 0.5, 3.25, "one two three."),
    )
    assert types(said) == [
        *("speech_started", "delta", "speech_stopped", "committed"),
        *("conversation.item.added", "conversation.item.done", "delta", "completed"),
    ]
    assert {one["item_id"] for one in said if "item_id" in one} == {"item_x_0"}
    assert deltas(said) == said[-1]["transcript"] == "one two three."
    assert (said[0]["audio_start_ms"], said[2]["audio_end_ms"]) == (500, 3250)
    assert said[-1]["usage"] == {"type": "duration", "seconds": 2.75}
    assert said[-1]["languages"] == [{"code": "en"}]
    (second,) = tell(items, SpeechStarted(1, 5.0))
    assert second["item_id"] == "item_x_1"
    stopped = tell(items, SpeechStopped(1, 6.0))
    assert stopped[1]["previous_item_id"] == "item_x_0"


def test_commits_are_acknowledged_before_the_engine_hears_of_them_and_completed_in_order() -> None:
    """Two commits before an engine has heard of either."""
    items = RealtimeTranscriptionTurns("x")
    items.detects = False
    with pytest.raises(CommitEmpty):
        items.commit(0.05)
    first, second = list(items.commit(1.0)), list(items.commit(2.0))
    assert [first[0]["item_id"], second[0]["item_id"]] == ["item_x_0", "item_x_1"]
    with pytest.raises(CommitEmpty):
        items.commit(2.05)
    said = tell(
        items,
        *(SpeechStarted(4, 0.1), SpeechStopped(4, 0.4), final(4, 0, "one")),
        *(TurnEnded(4, 0.1, 0.9, "one"), TurnEnded(5, 1, 2, "")),
    )
    assert types(said) == ["delta", "completed", "completed"]
    assert [one["item_id"] for one in said] == ["item_x_0", "item_x_0", "item_x_1"]


def test_commit_during_a_turn_ends_it_and_is_acknowledged_once() -> None:
    items = RealtimeTranscriptionTurns("x")
    tell(items, SpeechStarted(0, 0.1))
    said = [*items.commit(1.0), *tell(items, SpeechStopped(0, 0.9), TurnEnded(0, 0.1, 1, "a"))]
    assert types(said)[-2:] == ["speech_stopped", "completed"]
    assert sum(one["type"] == "input_audio_buffer.committed" for one in said) == 1


def test_cleared_turn_is_only_acknowledged_and_the_next_commit_is_another_item() -> None:
    items = RealtimeTranscriptionTurns("x")
    tell(items, SpeechStarted(0, 0.1), Partial(0, 0, 0.1, 1, "a b", "a"))
    items.clear(5.0)
    assert tell(items, TurnDropped(0, 5.0)) == [{"type": "input_audio_buffer.cleared"}]
    with pytest.raises(CommitEmpty):
        items.commit(5.0)
    assert next(iter(items.commit(6.0)))["item_id"] == "item_x_1"


def test_unrecognized_turn_and_commit_of_a_crashed_engine_are_transcription_failed() -> None:
    items = RealtimeTranscriptionTurns("x")
    wrong = NoticeRaised(Notice(RECOGNITION_FAILED, "A stretch was not understood."), None, 0.0)
    said = tell(items, SpeechStarted(0, 0), wrong, TurnEnded(0, 0, 1, ""), SpeechStarted(1, 2))
    assert types(said)[-2] == "failed"
    assert types(tell(items, TurnEnded(1, 2, 3, "")))[-1] == "completed"
    list(items.commit(4.0))
    (last,) = items.fail_committed(errors.EngineCrashed())
    check(last)
    assert last["error"]["code"] == "engine_crashed"


@pytest.mark.parametrize(
    ("second", "revised", "expected"),
    [
        (final(0, 1, "two"), SpeakersRevised({0: 0, 1: 1}), ["0 A", "0 A", "1 B"]),
        (
            replace(final(0, 1, "two", 1), name="Nell"),
            SpeakersRevised({}, {0: "Nagg", 1: None}),
            ["0 A", "1 Nell", "0 Nagg", "1 B"],
        ),
    ],
    ids=["labels", "names"],
)
def test_segment_is_sent_again_with_a_revised_speaker(
    second: Final, revised: SpeakersRevised, expected: list[str]
) -> None:
    items = RealtimeTranscriptionTurns("x")
    items.diarizes = True
    said = [one for one in tell(items, final(0, 0, "one", 0), second, revised) if "speaker" in one]
    assert [f"{one['id'].removeprefix('seg_x_')} {one['speaker']}" for one in said] == expected


def test_turn_recognized_in_part_is_completed_and_then_failed_from_where_words_are_missing() -> (
    None
):
    items = RealtimeTranscriptionTurns("x")
    wrong = [
        NoticeRaised(Notice(RECOGNITION_FAILED, "A stretch was not understood."), None, at)
        for at in (1.25, 2.5)
    ]
    said = tell(items, SpeechStarted(0, 0.1), final(0, 0, "one"), *wrong, TurnEnded(0, 0, 4, "one"))
    *_, completed, failed = said
    check(completed)
    check(failed)
    assert (types([completed, failed]), completed["transcript"]) == (["completed", "failed"], "one")
    assert failed["error"]["code"] == "engine_failed"
    assert "from 1.2 s of the audio" in failed["error"]["message"]
    assert failed["item_id"] == completed["item_id"]
    said = tell(items, SpeechStarted(1, 5), final(1, 1, "two"), TurnEnded(1, 5, 6, "two"))
    assert types(said)[-1] == "completed", "nothing is missing there"


def test_beta_clients_get_item_created_for_a_commit() -> None:
    items = RealtimeTranscriptionTurns("x", beta=True)
    created = list(items.commit(1.0))[1]
    assert created["type"] == "conversation.item.created"
    ConversationItemCreatedEvent.model_validate({"event_id": "1", **created}, strict=True)


WORDS = st.lists(st.sampled_from(["So,", "so", "we", "We", "go", "home.", ","]), max_size=6)


@pytest.mark.parametrize(
    ("stable", "second", "expected"),
    [
        ("然后", "然后吃饭。", "我们去北京然后吃饭。"),
        ("然有", "然后吃饭。", "我们去北京然有吃饭。"),
        ("之后", "然", "我们去北京之后"),
    ],
)
def test_deltas_of_chinese_are_never_taken_back_and_repeat_no_word(
    stable: str, second: str, expected: str
) -> None:
    items = RealtimeTranscriptionTurns("x")
    said = tell(items, final(0, 0, "我们去北京"), Partial(0, 1, 1.0, 2.0, stable, stable))
    said += tell(items, final(0, 1, second))
    assert deltas(said) == expected


@pytest.mark.parametrize("shown", ["Do you? No,", "Do you? No, I never", "Do you?", "Do", ""])
def test_deltas_of_a_divided_segment_repeat_no_word_of_its_second_part(shown: str) -> None:
    items = RealtimeTranscriptionTurns("x")
    said = tell(items, Partial(0, 0, 0.0, 1.0, shown, shown), final(0, 0, "Do you?"))
    said += tell(items, final(0, 1, "No, I never."))
    assert deltas(said).split() == ["Do", "you?", "No,", "I", *deltas(said).split()[4:]]
    assert len(deltas(said).split()) == 5


@given(st.lists(st.tuples(WORDS, st.lists(WORDS, max_size=3)), max_size=4))
def test_deltas_are_never_taken_back_and_miss_no_word(
    pieces: list[tuple[list[str], list[list[str]]]],
) -> None:
    """Whatever partials said, the deltas of a turn have at least as many words as its text, and
    are its text where the partials did not say otherwise."""
    items, true = RealtimeTranscriptionTurns("x"), True
    said: list[dict[str, Any]] = []
    texts: list[str] = []
    for piece, (last, drafts) in enumerate(pieces):
        stable: list[str] = []
        for draft in drafts:
            stable = [*stable, *draft[len(stable) :]]
            said += tell(items, Partial(0, piece, 0, 1, "", " ".join(stable)))
        true = true and last[: len(stable)] == stable
        if last:
            said += tell(items, final(0, piece, " ".join(last)))
            texts.append(" ".join(last))
        true = true and bool(last or not stable)
    whole = join_texts(texts)
    if true:
        assert deltas(said) == whole
    assert len(deltas(said).split()) >= len(whole.split()) - len(texts)
