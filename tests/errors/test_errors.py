import re
import subprocess
import sys
from collections import Counter

from many_cases import for_each

from sidecar import errors
from sidecar.api.http.error_responses import STATUS
from sidecar.plugins import PLUGINS

ALL = list(errors.all_errors())
IN_PLUGINS = {plugin.errors for plugin in PLUGINS if plugin.errors is not None}


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
    sent = error("What was wrong.", hint="What to do.", retry_after=7, fault=errors.Fault.SPOOL)
    got = errors.from_wire(sent.to_wire())
    assert type(got) is error
    assert got.to_wire() == sent.to_wire()
    assert got.fault is errors.Fault.SPOOL


def test_every_error_is_exported_under_its_name_by_the_core_or_by_its_plugin():
    places = (errors, *IN_PLUGINS)
    found = {one for at in places for one in vars(at).values() if isinstance(one, type)}
    assert [error for error in ALL if error not in found] == []
    names = [error.__name__ for error in ALL if error.__module__.startswith("sidecar.errors.")]
    assert [name for name in names if not hasattr(errors, name)] == []


def test_importing_the_plugin_list_registers_the_errors_of_all_plugins():
    """What a worker process or another service sent is read by its code."""
    code = "from sidecar import errors, plugins; print(*(e.code for e in errors.all_errors()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert {error.code for error in ALL} <= {*done.stdout.split()}, done.stderr


@for_each("error", ALL)
def test_every_error_has_an_http_status(error):
    assert 400 <= STATUS[error.kind] < 600


def test_unknown_code_becomes_the_base_error_with_its_text():
    got = errors.from_wire({"code": "from_the_future", "detail": "Odd.", "hint": "Wait."})
    assert type(got) is errors.SidecarError
    assert (got.detail, got.hint) == ("Odd.", "Wait.")


def test_error_read_from_a_code_alone_has_its_default_texts_and_retry_after():
    got = errors.from_wire({"code": "queue_full"})
    assert got.to_wire() == errors.QueueFull().to_wire()
    assert got.retry_after == 5


def test_cause_of_a_library_error_is_one_bounded_line():
    error = RuntimeError("Unable to load the vocabulary.\n\n  Install one of:\n  - tiktoken\n")
    assert errors.cause_of(error) == "Unable to load the vocabulary. Install one of: - tiktoken"
    assert errors.cause_of(RuntimeError("x" * 5000)) == "x" * 399 + "…"
