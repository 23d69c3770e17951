"""The words of clients, one by one: what they mean, and that what means nothing is named."""

import base64
import dataclasses
import difflib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import errors
from sidecar.engines import moonshine, scripted_engine, vibevoice, vibevoice_streaming
from sidecar.interfaces.engine_interface import (
    ChannelMode,
    DiarizationEffort,
    EngineSpec,
    Precision,
    TranscribeOptions,
    WindowingMode,
)
from sidecar.interfaces.language_tags import LANGUAGE_NAMES, NATIVE_LANGUAGE_NAMES, OTHER_CODES
from sidecar.interfaces.request_fields import MAX_PROMPT_CHARACTERS
from sidecar.interfaces.request_options import (
    MAX_UNKNOWN_FIELDS,
    decode_base64,
    field_missing,
    ignored_fields,
    parse_options,
    parse_precision,
    with_ignored_notices,
)
from sidecar.transcripts.transcript import Segment, Transcript


def parsed(**given: object) -> TranscribeOptions:
    return parse_options(given, DiarizationEffort.BALANCED)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"hotwords": "", "prompt": " ", "num_speakers": "", "max_tokens": None}, {}),
        ({"hotwords": " Nagg,  Nell\n"}, {"hotwords": ("Nagg", "Nell")}),
        ({"hotwords": "Nagg; Nell,,Nagg , "}, {"hotwords": ("Nagg", "Nell")}),
        (
            {"prompt": "Beckett", "hotwords": "Nagg, Nell"},
            {"prompt": "Beckett", "hotwords": ("Nagg", "Nell")},
        ),
        ({"context": "A play", "prompt": "A play "}, {"prompt": "A play"}),
        ({"prompt": "a\0b\tc\x1b[31md"}, {"prompt": "a b c [31md"}),
        ({"prompt": "می‌خواهم 👩‍👧"}, {"prompt": "می‌خواهم 👩‍👧"}),
        ({"num_speakers": "2"}, {"num_speakers": 2}),
        ({"num_speakers": 20.0}, {"num_speakers": 20}),
        ({"num_speakers": 1}, {"num_speakers": 1}),
        ({"min_speakers": "2", "max_speakers": 2}, {"min_speakers": 2, "max_speakers": 2}),
        ({"temperature": "0.5"}, {"temperature": 0.5}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": "1e-1"}, {"temperature": 0.1}),
        ({"temperature": 0}, {}),
        ({"max_tokens": "65536"}, {"max_tokens": 65_536}),
        ({"max_tokens": 1}, {"max_tokens": 1}),
        ({"windows": " Parallel"}, {"windows": WindowingMode.PARALLEL}),
        ({"precision": " INT8 ", "diarize": "no"}, {"precision": Precision.INT8, "diarize": False}),
        ({"precision": "", "language": "", "diarize": ""}, {}),
        ({"language": "pt_BR "}, {"language": "pt-BR"}),
        ({"language": "AUTO"}, {}),
        ({"language": "und", "diarize": "N"}, {"diarize": False}),
    ],
    ids=str,
)  # fmt: skip
def test_request_fields_become_normalized_options(
    given: dict[str, object], expected: dict[str, Any]
) -> None:
    options = parsed(**given)
    assert options == dataclasses.replace(TranscribeOptions(), **expected)
    assert isinstance(options.temperature, float)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("num_speakers", ["0", "21", "-1", "two", "2.5", "²", "1_0", "9" * 5000, 2.5, True, [2],
                          float("nan"), float("inf"), 10**400, {}]),
        ("temperature", ["-0.1", "1.1", "nan", "inf", "-inf", "hot", "0,5", "1" * 5000, "1e9999",
                         float("nan"), float("inf"), True, [0], 10**400, {}]),
        ("max_tokens", ["0", "-5", "65537", "all", "1.5", "nan", False, 0, float("nan"), []]),
        ("hotwords", [["Nagg", "Nell"], 5, True, {}, "\ud800", "x" * (MAX_PROMPT_CHARACTERS + 1)]),
        ("prompt", [5, "\udfff", "x" * (MAX_PROMPT_CHARACTERS + 1)]),
        ("context", [False, "x, " * MAX_PROMPT_CHARACTERS]),
        ("precision", [True, 8]),
        ("language", [True]),
        ("diarize", ["perhaps", 1, []]),
        ("words", ["perhaps", 1, []]),
        ("diarization", ["best", 1]),
        ("windows", ["many", 4, True]),
    ],
)  # fmt: skip
def test_impossible_value_is_refused_with_its_field(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(errors.FieldInvalid) as refused:
            parsed(**{field: value})
        assert f"'{field}'" in refused.value.detail, value
        assert len(refused.value.detail) < 200


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"prompt": "Beckett", "hotwords": "Nagg, Nell"}, "Beckett, Nagg, Nell"),
        ({"context": "A play.", "hotwords": "Nagg"}, "A play. Nagg"),
        ({"hotwords": "Nagg;Nell"}, "Nagg, Nell"),
        ({"prompt": "A play"}, "A play"),
        (
            {"prompt": "A play.\nBeckett\r\n\n Godot ", "hotwords": "Nagg\nNell"},
            "A play. Beckett, Godot, Nagg, Nell",
        ),
    ],
)
def test_prompt_with_hotwords_is_the_context_followed_by_the_hotwords(
    given: dict[str, object], expected: str
) -> None:
    assert parsed(**given).prompt_with_hotwords == expected


def test_context_keeps_its_lines_and_each_hotword_has_its_own_for_a_model_trained_so() -> None:
    options = parsed(prompt="A play.\r\n \nMr.\tBeckett \x07", hotwords="Nagg, Nell;Hamm\nClov")
    assert options.prompt == "A play.\nMr. Beckett"
    assert options.prompt_lines == "A play.\nMr. Beckett\nNagg\nNell\nHamm\nClov"
    assert parsed(hotwords="Nagg").prompt_lines == "Nagg"
    assert parsed().prompt_lines == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Agent, Caller,", ("Agent", "Caller")),
        (", Caller ; ,", ("", "Caller")),
        ("Ag\u200bent\u202e, \u2066Caller\ufeff,\u200b", ("Agent", "Caller")),
    ],
)
def test_names_of_channels_are_without_empty_last_ones_and_invisible_characters(
    given: str, expected: tuple[str, ...]
) -> None:
    options = parsed(channels="separate", channel_names=given)
    assert options.channel_names == expected


def test_prompt_and_context_together_are_refused() -> None:
    with pytest.raises(errors.FieldInvalid, match="'prompt' and 'context'"):
        parsed(prompt="Endgame", context="Happy Days")


def test_context_and_hotwords_share_their_limit() -> None:
    half = MAX_PROMPT_CHARACTERS // 2
    both = parsed(prompt="x" * (half - 2), hotwords="y" * half)
    assert len(both.prompt_with_hotwords) == MAX_PROMPT_CHARACTERS
    with pytest.raises(errors.FieldInvalid, match="'prompt' and 'hotwords'"):
        parsed(prompt="x" * half, hotwords="y" * half)


@pytest.mark.parametrize(
    ("spec", "fields", "expected"),
    [
        (moonshine.SPEC, {}, ()),
        (moonshine.SPEC, {"temperature": "0"}, ()),
        (moonshine.SPEC, {"hotwords": "Nagg", "max_tokens": 9}, ("max_tokens",)),
        (moonshine.SPEC, {"hotwords": "Nagg", "prompt": "Beckett"}, ("prompt",)),
        (scripted_engine.SPEC, {"hotwords": "Nagg"}, ("prompt/hotwords",)),
        (moonshine.SPEC, {"num_speakers": 2, "temperature": 1}, ("temperature",)),
        (vibevoice.SPEC, {"hotwords": "Nagg", "temperature": 1}, ()),
        (vibevoice.SPEC, {"hotwords": "Nagg", "num_speakers": 2}, ("num_speakers",)),
        (vibevoice.SPEC, {"max_speakers": 2}, ("min_speakers/max_speakers",)),
        (moonshine.SPEC, {"max_speakers": 2}, ()),
        (vibevoice_streaming.SPEC, {"hotwords": "Nagg", "temperature": 1}, ("temperature",)),
        (
            vibevoice_streaming.SPEC,
            {"max_tokens": 9, "windows": "single"},
            ("max_tokens", "windows"),
        ),
    ],
)
def test_ignored_fields_are_those_that_the_engine_does_not_support(
    spec: EngineSpec, fields: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert ignored_fields(spec, parsed(**fields)) == expected


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "hotwords", "num_speakers", "temperature", "max_tokens"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_random_fields_give_options_or_a_refusal(fields: dict[str, object]) -> None:
    refused = ""
    try:
        options = parsed(**fields)
    except errors.FieldInvalid as error:
        refused, options = error.detail, TranscribeOptions()
    assert not refused or any(f"'{name}'" in refused for name in fields)
    assert 0.0 <= options.temperature <= 1.0
    assert len(options.prompt_with_hotwords) <= MAX_PROMPT_CHARACTERS
    assert TranscribeOptions.from_wire(options.to_wire()) == options
    options.prompt_with_hotwords.encode()


def test_suggestion_for_a_missing_field_compares_only_the_first_sent_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = list[str]()
    real = difflib.get_close_matches

    def count(word: str, possibilities: list[str], n: int) -> list[str]:
        compared.extend(possibilities)
        return real(word, possibilities, n)

    monkeypatch.setattr(difflib, "get_close_matches", count)
    sent = [f"precisioN{number}" * 40 for number in range(5000)]
    assert field_missing("precision", ["precison", *sent]).hint == (
        "Did you mean 'precision' by 'precison'?"
    )
    assert len(compared) == MAX_UNKNOWN_FIELDS
    assert max(map(len, compared)) <= 64


@pytest.mark.parametrize(
    ("value", "language"),
    [
        *[("german", "de"), ("deutsch", "de"), ("DEUTSCH", "de"), ("English ", "en")],
        *[("español", "es"), ("espanol", "es"), ("svenska", "sv"), ("Français", "fr")],
        *[("nederlands", "nl"), ("中文", "zh"), ("italiano", "it"), ("polski", "pl")],
        *[("हिन्दी", "hi"), ("Norsk", "no"), ("Haitian Creole", "ht"), ("Bahasa Indonesia", "id")],
        *[("romana", "ro"), ("lao", "lo"), ("Mandarin", "zh"), ("Castilian", "es")],
        *[("eng", "en"), ("ENG", "en"), ("deu", "de"), ("ger", "de"), ("fra", "fr"), ("fre", "fr")],
        *[("chi", "zh"), ("zho", "zh"), ("cmn-Hans-CN", "zh-Hans-CN"), ("eng_US", "en-US")],
        *[("nb-NO", "no-NO"), ("nob", "no"), ("jv", "jw"), ("fil", "tl"), ("iw", "he")],
        *[("haw", "haw"), ("yue-Hant-HK", "yue-Hant-HK"), ("tlh", "tlh"), ("es-419", "es-419")],
        *[("de-1996", "de-1996"), ("de-DE-u-co-phonebk", "de-DE-u-co-phonebk"), ("En-us", "En-us")],
    ],
)
def test_language_tag_three_letter_code_or_name_is_normalized_to_a_tag(
    value: str, language: str
) -> None:
    assert parsed(language=value).language == language


@pytest.mark.parametrize(
    "name",
    [
        *("Romansh", "Prussian", "Kurdish", "Französisch", "slovensky", "Aromanian", "deutch"),
        *("no tag", "e", "../../etc", "en; id"),
    ],
)
def test_language_that_is_no_tag_and_no_known_name_is_refused(name: str) -> None:
    with pytest.raises(errors.LanguageInvalid) as refused:
        parsed(language=f"{name}\n")
    assert refused.value.detail == f"'{name}' is not a language tag."
    assert refused.value.hint == "Use 'auto' or a tag such as 'en' or 'de-CH'."


def test_each_name_and_code_names_one_known_language() -> None:
    native, english = NATIVE_LANGUAGE_NAMES, {name: code for code, name in LANGUAGE_NAMES.items()}
    assert set(native) <= set(LANGUAGE_NAMES)
    assert len(set(native.values())) == len(native)
    assert all(english.get(name, code) == code for code, name in native.items())
    others = [other for codes in OTHER_CODES.values() for other in codes.split()]
    assert set(OTHER_CODES) == {code for code in LANGUAGE_NAMES if len(code) == 2}
    assert len(set(others)) == len(others)
    assert not set(others) & set(LANGUAGE_NAMES)


@given(st.binary(max_size=200), st.sampled_from(["", "\n", "\r\n", " "]), st.booleans())
def test_base64_is_read_with_line_breaks_in_either_alphabet_unpadded_or_as_a_data_url(
    raw: bytes, end: str, padded: bool
) -> None:
    for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        text = encoded.decode() if padded else encoded.decode().rstrip("=")
        lines = (text[at : at + 76] + end for at in range(0, len(text), 76))
        sent = "".join(lines)
        assert decode_base64(sent) == raw
        assert decode_base64(f"data:audio/pcm;base64,{sent}") == raw


@pytest.mark.parametrize("text", ["$$$$", "A", "AA=A", "QUJD!", "é", "QUI=QUI="])
def test_text_that_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_base64(text)


def test_unknown_precision_is_quoted_and_shortened() -> None:
    with pytest.raises(errors.PrecisionUnknown) as refused:
        parse_precision("int3\n" + "x" * 100_000)
    assert refused.value.detail.startswith("The precision 'int3\N{REPLACEMENT CHARACTER}xx")
    assert len(refused.value.detail) < 200
    assert refused.value.hint == "Use one of: auto, fp32, bf16, fp16, int8, int4."


@pytest.mark.parametrize(
    ("options", "speakers", "named"),
    [
        ({"max_speakers": 1}, 2, "at most 1"),
        ({"num_speakers": 1}, 2, "2 speakers; the request named 1"),
        ({"num_speakers": 3}, 2, "named 3"),
        ({"min_speakers": 3}, 2, "at least 3"),
        ({"min_speakers": 3, "max_speakers": 4}, 1, "1 speaker; the request named at least 3"),
        ({"min_speakers": 1, "max_speakers": 2}, 2, ""),
        ({"num_speakers": 2}, 2, ""),
        ({}, 7, ""),
        ({"num_speakers": 2}, 0, ""),
        ({"max_speakers": 1, "channels": ChannelMode.SEPARATE}, 2, ""),
    ],
    ids=str,
)
def test_given_number_of_speakers_that_was_not_kept_is_said(
    options: dict[str, Any], speakers: int, named: str
) -> None:
    segments = tuple(Segment(at, at + 1.0, "Yes.", at) for at in range(speakers))
    found = Transcript(segments, "en", 9.0, "moonshine", "fp32", diarized=True)
    noted = with_ignored_notices(moonshine.SPEC, found, TranscribeOptions(**options))
    assert [one.code for one in noted.notices] == ["speaker_count_differs"] * bool(named)
    assert all(named in one.message for one in noted.notices)
    alone = replace(found, diarized=False)
    assert not with_ignored_notices(moonshine.SPEC, alone, TranscribeOptions(**options)).notices
