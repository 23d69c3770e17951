"""The table of the options of a request, and that each holder of one reads it."""

from dataclasses import asdict, fields
from enum import StrEnum

import pytest

from sidecar.api.http.openapi import OPTIONS
from sidecar.cli.request_flags import RequestFlags
from sidecar.cli.transcribe import TranscribeCommandOptions
from sidecar.engines import ENGINES
from sidecar.errors import FieldInvalid
from sidecar.interfaces.engine_interface import DiarizationEffort, EngineSpec, TranscribeOptions
from sidecar.interfaces.request_fields import REQUEST_FIELDS, RequestField, followed_options
from sidecar.interfaces.request_options import ignored_fields, parse_options
from sidecar.plugins.openai.request import KNOWN_FIELDS
from sidecar.plugins.upstream.sidecar_dialect import OPTIONS as SENT_UPSTREAM

OF_THE_SERVICE = {
    *("translate", "memory", "memory_fallback", "memory_alone", "known_voices"),
    *("unknown_fields", "keeps_diarization", "token_hotwords"),
}
"""Options that no field of a request sets: the service or a protocol does."""
ROWS = list(REQUEST_FIELDS.values())
OTHER_VALUES = {"language": "de", "channel_names": "Agent, Caller"}
NEEDED = {"channel_names": {"channels": "separate"}}


def value_of(row: RequestField) -> str:
    """A value that is not the default, as a form has it."""
    if row.kind is bool:
        return str(not row.default).lower()
    if issubclass(row.kind, StrEnum):
        return str(list(row.kind)[-1])
    if row.kind is str:
        return OTHER_VALUES.get(row.name, "Beckett")
    return f"{row.most:g}"


def parsed(**given: object) -> TranscribeOptions:
    return parse_options(given, DiarizationEffort.BALANCED)


def test_each_option_is_a_row_unless_the_service_sets_it() -> None:
    rows = {row.same_as or row.name for row in ROWS}
    assert rows | OF_THE_SERVICE == {one.name for one in fields(TranscribeOptions)}
    assert not rows & OF_THE_SERVICE


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_value_of_each_row_changes_its_option_alone(row: RequestField) -> None:
    more = NEEDED.get(row.name, {})
    before = asdict(parsed(**more))
    after = asdict(parsed(**more, **{row.name: value_of(row)}))
    assert {name for name in before if before[name] != after[name]} == {row.same_as or row.name}


@pytest.mark.parametrize("row", [row for row in ROWS if row.most], ids=lambda row: row.name)
def test_number_beyond_the_limits_of_its_row_is_refused(row: RequestField) -> None:
    for value in (row.least - 1, row.most + 1):
        with pytest.raises(FieldInvalid, match=f"'{row.name}'"):
            parsed(**{row.name: value})
    schema = OPTIONS[row.name]
    assert (schema["minimum"], schema["maximum"]) == (row.least, row.most)


def test_each_flag_of_transcribe_is_sent_as_the_field_of_its_name() -> None:
    flags = {one.name: value_of(REQUEST_FIELDS[one.name]) for one in fields(RequestFlags)}
    sent = TranscribeCommandOptions([], request=RequestFlags(**flags)).options
    assert sent == flags
    assert flags.keys() == {row.name for row in ROWS if row.help}


def test_protocols_take_the_rows_that_name_them() -> None:
    assert {row.name for row in ROWS if row.openai} <= KNOWN_FIELDS
    assert set(SENT_UPSTREAM) == {row.name for row in ROWS if row.upstream and not row.same_as}


@pytest.mark.parametrize("spec", ENGINES, ids=lambda spec: spec.name)
def test_option_is_followed_by_an_engine_or_named_in_its_notice(spec: EngineSpec) -> None:
    for row in ROWS:
        if row.same_as:
            continue
        options = parsed(**NEEDED.get(row.name, {}), **{row.name: value_of(row)})
        ignored = "/".join(ignored_fields(spec, options)).split("/")
        assert (row.name in followed_options(spec)) is (row.name not in ignored)


def test_vibevoice_takes_words_to_expect_and_no_number_of_speakers() -> None:
    followed = followed_options(next(spec for spec in ENGINES if spec.name == "vibevoice"))
    assert {"hotwords", "prompt", "windows"} <= set(followed)
    assert not {"num_speakers", "speakers", "min_speakers", "max_speakers"} & set(followed)
