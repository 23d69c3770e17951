import re
from collections import Counter

from many_cases import for_each

from sidecar import errors
from sidecar.api.http.error_responses import STATUS

ALL = list(errors.all_errors())


def test_no_two_errors_share_a_code():
    assert [code for code, times in Counter(error.code for error in ALL).items() if times > 1] == []


@for_each("error", ALL)
def test_every_error_has_a_code_a_detail_and_a_hint(error):
    assert re.fullmatch(r"[a-z][a-z_]+", error.code)
    for text in (error.default_detail, error.default_hint):
        assert text.strip() == text
        assert text
        assert "\n" not in text
    assert error.default_detail.endswith(".")


@for_each("error", ALL)
def test_every_error_survives_serialization(error):
    sent = error("What was wrong.", hint="What to do.", retry_after=7)
    got = errors.from_wire(sent.to_wire())
    assert type(got) is error
    assert got.to_wire() == sent.to_wire()


def test_every_error_is_exported_under_its_name():
    assert [error for error in ALL if getattr(errors, error.__name__, None) is not error] == []


@for_each("error", ALL)
def test_every_error_has_a_status(error):
    assert 400 <= STATUS[error.kind] < 600


def test_unknown_code_becomes_the_base_error_with_its_text():
    got = errors.from_wire({"code": "from_the_future", "detail": "Odd.", "hint": "Wait."})
    assert type(got) is errors.SidecarError
    assert (got.detail, got.hint) == ("Odd.", "Wait.")


def test_error_without_text_has_its_defaults():
    got = errors.from_wire({"code": "queue_full"})
    assert got.to_wire() == errors.QueueFull().to_wire()
    assert got.retry_after == 5


def test_cause_of_a_library_error_is_one_bounded_line():
    error = RuntimeError("Unable to load the vocabulary.\n\n  Install one of:\n  - tiktoken\n")
    assert errors.cause_of(error) == "Unable to load the vocabulary. Install one of: - tiktoken"
    assert errors.cause_of(RuntimeError("x" * 5000)) == "x" * 399 + "…"
