"""OpenAI's API, as far as it is decided without a service: forms, labels, streams, names."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from many_cases import for_each

from sidecar import errors
from sidecar.audio.audio_info import AudioInfo
from sidecar.audio.audio_source import ClientFileRef
from sidecar.engines import moonshine, scripted_engine, whisper
from sidecar.interfaces.engine_interface import EngineSpec, Precision, TranscribeOptions
from sidecar.interfaces.language_tags import parse_language
from sidecar.jobs.job_record import JobRecord, JobState
from sidecar.plugins.openai import common as openai_common
from sidecar.plugins.openai.errors import TranslationUnavailable, WordsUnavailable
from sidecar.plugins.openai.messages import (
    OpenAIJobEvents,
    diarized_body,
    transcription_answer,
    verbose_body,
)
from sidecar.plugins.openai.request import (
    OpenAIAnswerOptions,
    OpenAIGranularity,
    OpenAIRequestForm,
    OpenAIResponseFormat,
    answer_options_of,
    known_speakers,
    option_fields,
)
from sidecar.plugins.openai.retries import timed_out
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Segment, Transcript, Word


def segment(start: float, text: str, speaker: int = 0, **more: object) -> Segment:
    return Segment(start, start + 1, text, speaker, **more)  # type: ignore[arg-type]


def transcript(*segments: Segment) -> Transcript:
    return Transcript(segments, "en-GB", 9.0, "scripted", "fp32", diarized=True)


def record(*segments: Segment, done: bool = False, attempts: int = 0) -> JobRecord:
    facts = AudioInfo("wav", "libsndfile", 9.0)
    begun = JobRecord.submitted(0.0, ClientFileRef("/a.wav", 1, 1), facts, TranscribeOptions())
    return replace(
        begun,
        segments=segments,
        attempts=attempts,
        state=JobState.DONE if done else JobState.RUNNING,
        transcript=transcript(*segments) if done else None,
    )


def test_speaker_labels_are_letters_as_of_spreadsheet_columns() -> None:
    assert [
        openai_common.speaker_letters(number) for number in (0, 1, 25, 26, 27, 51, 52, 702)
    ] == [*("A", "B", "Z", "AA", "AB", "AZ", "BA", "AAA")]


texts = st.lists(st.text(st.sampled_from("ab,;. "), max_size=6), max_size=6)


@given(texts)
def test_joined_deltas_of_a_stream_are_the_text_of_its_transcript(said: list[str]) -> None:
    told, segments = OpenAIJobEvents(diarized=False), []
    deltas = []
    for at, text in enumerate(said):
        segments.append(segment(at, text))
        deltas += [event["delta"] for event in told.more(record(*segments))]
    end = record(*segments, done=True)
    deltas += [event["delta"] for event in told.more(end)]
    assert end.transcript is not None
    (done,) = told.end(end.transcript)
    assert "".join(deltas) == done["text"] == end.transcript.text


def test_segment_with_a_revised_speaker_is_sent_again_with_its_id() -> None:
    told = OpenAIJobEvents(diarized=True)
    music = segment(1, "[Music]", flags=(NON_SPEECH_FLAG,))
    heard = [segment(0, "One."), music, segment(2, "Two.", 0)]
    events = [*told.more(record(*heard))]
    end = record(*heard[:2], replace(heard[2], speaker=1), done=True)
    events += told.more(end)
    assert end.transcript is not None
    events += told.end(end.transcript)
    kinds = [one["type"].rpartition(".")[2] for one in events]
    assert kinds == ["delta", "segment", "delta", "segment", "segment", "done"]
    labels = [(one["id"], one["speaker"]) for one in events if "speaker" in one]
    assert labels == [("seg_000", "A"), ("seg_001", "A"), ("seg_001", "B")]
    assert events[-1]["segments"] == diarized_body(end.transcript)["segments"]
    assert events[-1]["text"] == "One. Two."


def test_segments_repeated_after_a_crash_are_not_sent_again() -> None:
    told = OpenAIJobEvents(diarized=False)
    heard = [segment(0, "One."), segment(1, "Two.")]
    first = [*told.more(record(*heard))]
    assert [*told.more(record(heard[0], attempts=1))] == []
    more = [*told.more(record(*heard, segment(2, "Three."), attempts=1))]
    assert [one["delta"] for one in (*first, *more)] == ["One.", " Two.", " Three."]


def test_verbose_json_has_stripped_words_and_leaves_out_non_speech_that_subtitles_have() -> None:
    words = (Word(0.0, 0.4, " One"), Word(0.4, 0.9, "more."))
    said = transcript(
        segment(0, "One more.", words=words), segment(2, "[Music]", flags=(NON_SPEECH_FLAG,))
    )
    wish = OpenAIAnswerOptions(
        OpenAIResponseFormat.VERBOSE, granularities=frozenset(OpenAIGranularity)
    )
    body = verbose_body(said, wish, 0.0)
    assert body["text"] == "One more."
    assert body["language"] == "english"
    assert [one["text"] for one in body["segments"]] == [" One more."]
    assert [(one["word"], one["start"], one["end"]) for one in body["words"]] == [
        ("One", 0.0, 0.4),
        ("more.", 0.4, 0.9),
    ]
    only = verbose_body(said, replace(wish, granularities=frozenset({OpenAIGranularity.WORD})), 0.0)
    assert "segments" not in only
    subtitles = transcription_answer(said, OpenAIAnswerOptions(OpenAIResponseFormat.SRT), 0.0)
    assert b"[Music]" in subtitles[0]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Do you?", "I do.", "Good."], [" Do you?", " I do.", " Good."]),
        (["Well,", ", then"], [" Well,", " then"]),
        (
            ["我们明天去北京", "然后吃饭。", "OK.", "你好"],
            ["我们明天去北京", "然后吃饭。", " OK.", " 你好"],
        ),
        (["안녕", "하세요"], [" 안녕", " 하세요"]),
    ],
)
def test_texts_of_verbose_segments_begin_with_the_space_before_them_and_add_up_to_the_text(
    texts: list[str], expected: list[str]
) -> None:
    said = transcript(*(segment(at, text) for at, text in enumerate(texts)))
    body = verbose_body(said, OpenAIAnswerOptions(OpenAIResponseFormat.VERBOSE), 0.0)
    assert [one["text"] for one in body["segments"]] == expected
    assert "".join(expected).strip() == body["text"]


def test_vtt_has_no_tags_and_the_text_as_it_is_unless_the_client_asks_for_speakers() -> None:
    words = (Word(0.0, 0.4, "AT&T", 0.1), Word(0.5, 0.9, "<b>", 0.1))
    said = transcript(segment(0, "AT&T <b>", words=words))
    wish = OpenAIAnswerOptions(OpenAIResponseFormat.VTT)
    plain, kind = transcription_answer(replace(said, diarized=False), wish, 0.0)
    assert plain.decode() == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nAT&T <b>\n"
    assert kind == "text/plain; charset=utf-8"
    voices, _ = transcription_answer(said, wish, 0.0)
    assert b"\n<v Speaker_0>AT&amp;T &lt;b&gt;\n" in voices


def test_word_timestamps_of_silence_are_an_empty_list_and_of_speech_without_words_an_error() -> (
    None
):
    wish = OpenAIAnswerOptions(
        OpenAIResponseFormat.VERBOSE, granularities=frozenset({OpenAIGranularity.WORD})
    )
    assert verbose_body(transcript(), wish, 0.0)["words"] == []
    with pytest.raises(WordsUnavailable, match="scripted"):
        verbose_body(transcript(segment(0, "One.")), wish, 0.0)


def answer_of(
    lists: dict[str, list[str]], spec: EngineSpec = scripted_engine.SPEC, *, translate: bool = False
) -> OpenAIAnswerOptions:
    return answer_options_of(OpenAIRequestForm(lists), spec, translate=translate)


def test_last_value_of_a_repeated_field_counts() -> None:
    form = OpenAIRequestForm({"model": ["a", "b"]})
    assert (form.one("model"), form.one("no")) == ("b", "")


def test_list_fields_merge_plain_bracketed_and_numbered_forms_in_order_of_the_numbers() -> None:
    form = OpenAIRequestForm({"keywords[]": ["Nagg"], "keywords": ["Nell"]})
    assert form.all("keywords") == ["Nagg", "Nell"]
    numbered = {"keywords[10]": ["d"], "keywords[0]": ["b"], "keywords[2]": ["c"]}
    assert OpenAIRequestForm({**numbered, "keywords": ["a"]}).all("keywords") == [*"abcd"]
    asked = {"timestamp_granularities[0]": ["word"], "response_format": ["verbose_json"]}
    assert answer_of(asked).granularities == {OpenAIGranularity.WORD}
    assert answer_of({"include[0]": ["logprobs"]}).notices


def test_object_field_in_brackets_is_read_as_its_json() -> None:
    by_hand = {"chunking_strategy[type]": ["server_vad"], "chunking_strategy[threshold]": ["1"]}
    as_json = {"chunking_strategy": ['{"type": "server_vad", "threshold": 1}']}
    assert answer_of(by_hand).notices == answer_of(as_json).notices != ()


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"type": 1}', '{"threshold": NaN}', '{"type": "server_vad", "a": 1}']
)
def test_broken_chunking_strategy_is_refused(broken: str) -> None:
    with pytest.raises(errors.FieldInvalid):
        answer_of({"chunking_strategy": [broken]})


def options_of(
    lists: dict[str, list[str]],
    form: OpenAIResponseFormat = OpenAIResponseFormat.JSON,
    precision: Precision = Precision.AUTO,
) -> Mapping[str, object]:
    answer = OpenAIAnswerOptions(form)
    return option_fields(OpenAIRequestForm(lists), scripted_engine.SPEC, answer, precision)


def test_form_fields_become_job_options_and_language_together_with_languages_is_refused() -> None:
    words = {"hotwords": ["Clov"], "keywords[]": ["Nagg", " Nell  and ", " "]}
    wish = {**words, "language": ["German"], "precision": ["fp32"]}
    fields = options_of(wish, precision=Precision.INT8)
    assert fields["hotwords"] == "Clov, Nagg, Nell and"
    assert fields["language"] == "de"
    assert fields["precision"] == "int8", "that of the model counts"
    assert fields["diarize"] is False
    assert options_of({"diarize": ["true"]})["diarize"] == "true"
    assert options_of({}, OpenAIResponseFormat.DIARIZED)["diarize"] is True
    assert options_of({})["language"] == ""
    with pytest.raises(errors.FieldInvalid):
        options_of({"language": ["en"], "languages[]": ["de"]})


def test_of_several_languages_the_only_known_one_is_used_or_auto_and_none_known_is_refused() -> (
    None
):
    assert openai_common.engine_language(moonshine.SPEC, ["de", "en"]) == "en"
    assert openai_common.engine_language(whisper.SPEC, ["de", "en"]) == "auto"
    assert openai_common.engine_language(whisper.SPEC, ["de", "German"]) == "de"
    with pytest.raises(errors.LanguageUnsupported):
        openai_common.engine_language(moonshine.SPEC, ["de", "fr"])


def test_every_whisper_language_has_a_name_that_is_read_back() -> None:
    assert set(openai_common.LANGUAGE_NAMES) == set(whisper.SPEC.languages)
    assert len(set(openai_common.LANGUAGE_NAMES.values())) == len(openai_common.LANGUAGE_NAMES)
    for code, name in openai_common.LANGUAGE_NAMES.items():
        assert openai_common.language_name(f"{code}-XX") == name
        assert parse_language(f" {name.title()} ") == code
    assert openai_common.language_name("auto") == "unknown"
    assert openai_common.language_name("tlh") == "tlh"


def test_translation_is_refused_by_engines_without_it_and_as_diarized_json() -> None:
    assert answer_of({}, whisper.SPEC, translate=True).translate
    with pytest.raises(TranslationUnavailable, match="moonshine"):
        answer_of({}, moonshine.SPEC, translate=True)
    with pytest.raises(errors.FieldInvalid, match="diarized_json"):
        answer_of({"response_format": ["diarized_json"]}, whisper.SPEC, translate=True)


def test_strict_model_names_are_the_engine_with_or_without_precision_and_openais_names() -> None:
    assert (
        openai_common.chosen_precision(whisper.SPEC, "whisper:fp16", strict=True) is Precision.FP16
    )
    assert openai_common.chosen_precision(whisper.SPEC, "whisper-1", strict=True) is Precision.AUTO
    assert f"{moonshine.SPEC.name}:auto" not in openai_common.model_names(moonshine.SPEC)
    for name in ("scripted", "whisper:int4", "WHISPER", "whisper:", "gpt-4o"):
        with pytest.raises(errors.ModelNotFound):
            openai_common.chosen_precision(whisper.SPEC, name, strict=True)


@pytest.mark.parametrize(
    "name",
    [
        *("whisper-large-v3", "whisper-large-v3-turbo", "large-v3", "base", "distil-large-v3"),
        *("distil-whisper-large-v3-en", "Systran/faster-distil-whisper-small.en"),
        *("openai/whisper-large-v3", "gpt-4o-transcribe-2027-01-01", "gpt-live-transcribe"),
        "gpt-realtime-whisper",
    ],
)
def test_default_model_of_a_client_is_accepted_unless_strict(name: str) -> None:
    assert openai_common.chosen_precision(whisper.SPEC, name, strict=False) is Precision.AUTO
    with pytest.raises(errors.ModelNotFound):
        openai_common.chosen_precision(whisper.SPEC, name, strict=True)


@for_each("kind", errors.all_errors())
def test_every_error_has_openais_shape_and_says_whether_to_retry(
    kind: type[errors.SidecarError],
) -> None:
    error = kind()
    body = openai_common.error_body(error)["error"]
    assert body["code"] == kind.code
    assert body["message"].startswith(error.detail)
    status = openai_common.status_of(error)
    assert 400 <= status < 600
    if openai_common.is_retryable(error):
        assert status in (408, 409, 429) or status >= 500, "the package would not ask again"
        assert error.retry_after or kind is errors.UploadStalled
    if kind in (errors.JobCancelled, errors.WontFit, errors.EngineCrashed, errors.EngineFailed):
        assert not openai_common.is_retryable(error)


def test_openai_error_names_the_invalid_parameter() -> None:
    assert openai_common.param_of(errors.FieldInvalid("'known_speaker_names[]' has a name.")) == (
        "known_speaker_names"
    )
    assert openai_common.param_of(errors.FieldInvalid("The field is wrong.")) is None
    assert openai_common.param_of(errors.AudioTooLong()) == "file"
    assert openai_common.param_of(errors.QueueFull()) is None


def request(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": named})


@pytest.mark.parametrize(
    ("waited_s", "headers", "expected"),
    [
        (600.0, {"x_stainless_retry_count": "0"}, True),
        (500.0, {"x_stainless_retry_count": "0"}, False),
        (600.0, {}, False),
        (600.0, {"x_stainless_retry_count": "2"}, False),
        (600.0, {"x_stainless_retry_count": "-1"}, False),
        (2.0, {"x_stainless_retry_count": "1", "x_stainless_read_timeout": "2.0"}, True),
        (2.0, {"x_stainless_retry_count": "1", "x_stainless_timeout": "3"}, False),
        (2.0, {"x_stainless_retry_count": "1", "x_stainless_timeout": "none"}, False),
        *(
            (2.0, {"x_stainless_retry_count": "1", "x_stainless_timeout": never}, False)
            for never in ("0", "-1", "nan")
        ),
    ],
)
def test_hangup_counts_as_timed_out_after_the_clients_timeout_if_it_will_retry(
    waited_s: float, headers: dict[str, str], expected: bool
) -> None:
    assert timed_out(request(**headers), waited_s) is expected


words = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["{", '{"type": "server_vad"}', '{"type": []}', "word", "en", "auto", "true"]),
)
vad = ("chunking_strategy", "chunking_strategy[type]", "chunking_strategy[")
lists = ("languages[]", "include[]", "timestamp_granularities[]", "keywords")
fields = st.sampled_from([*vad, *lists, "language", "response_format", "stream", "model"])


@given(st.dictionaries(fields, st.lists(words, min_size=1, max_size=3)))
def test_random_form_fields_give_options_or_a_bad_request(lists: dict[str, list[str]]) -> None:
    try:
        wish = answer_of(lists)
        said = option_fields(OpenAIRequestForm(lists), scripted_engine.SPEC, wish, Precision.AUTO)
    except errors.BadRequest:
        return
    assert wish.format in OpenAIResponseFormat
    assert said.keys() >= {"language", "prompt", "temperature", "diarize"}


@given(st.lists(st.text(max_size=70), max_size=5), st.lists(st.text(max_size=40), max_size=5))
def test_random_known_speakers_are_accepted_or_field_invalid(
    names: list[str], voices: list[str]
) -> None:
    try:
        known = known_speakers(names, [f"data:audio/wav;base64,{voice}" for voice in voices])
    except errors.FieldInvalid:
        return
    assert len(known) == len(names) <= 4
