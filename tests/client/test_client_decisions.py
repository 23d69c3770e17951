"""The client's decisions: events out of bytes, when to try again, what an answer means."""

import ast
import asyncio
import dataclasses
import inspect
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import vibevoice_asr_client as package
import vibevoice_asr_load_test
from httpx_sse import ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st
from service_process import new_file
from vibevoice_asr_client import AsyncClient, Client, Event, Retry, calls, codes, transport
from vibevoice_asr_client import errors as families
from vibevoice_asr_client.calls import Answer, Call
from vibevoice_asr_client.flows import Following, Lost, Surroundings, asking
from vibevoice_asr_client.models import transcript_of
from vibevoice_asr_client.retry import asked_s
from vibevoice_asr_client.uploads import Upload

import sidecar.plugins  # noqa: F401  # with their errors
from sidecar import errors
from sidecar.api.http.error_responses import STATUS

NOW = datetime(2026, 11, 21, tzinfo=UTC)
AROUND = Surroundings(Retry(attempts=3, first_s=1.0, longest_s=30.0), lambda: 1.0, lambda: NOW)
STREAM = {"content-type": "text/event-stream"}


def problem(status: int, code: str, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps({"code": code, "detail": "No.", "hint": "Do."}))


def lost(*, sent: bool) -> Lost:
    return Lost(families.ConnectionLost("It broke off."), sent)


def run(call: Call, *replies: Answer | Lost) -> tuple[list[float], Answer]:
    """What was waited for, and what it came to, where the service replied so."""
    left, waits = list(replies), []

    async def send(_: Call) -> Answer | Lost:
        return left.pop(0)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return waits, asyncio.run(asking(call, AROUND, send, sleep))


def read(*pieces: bytes, **limits: int) -> list[ServerSentEvent]:
    """The events in a body that comes in such pieces."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def all_of() -> list[ServerSentEvent]:
        return [told async for told in transport.events_in(body(), **limits)]

    return asyncio.run(all_of())


def took(following: Following, *pieces: bytes) -> list[Event]:
    """The events of a connection that are new."""
    return [event for told in read(*pieces) if (event := following.took(told)) is not None]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["queue", "data", "done"]),
            st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])),
            st.integers(0, 10**6),
        )
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_events_do_not_depend_on_how_their_bytes_are_split(events, end, data) -> None:
    raw = "".join(
        f": alive{end}event: {event}{end}id: {number}{end}data: {text}{end}{end}"
        for event, text, number in events
    ).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[begin:stop] for begin, stop in pairwise([0, *cuts, len(raw)])]
    heard = [(told.event, told.data, int(told.id)) for told in read(*pieces)]
    assert heard == events


def test_event_over_the_length_limit_is_an_error_and_many_short_ones_are_not() -> None:
    for piece in (b"x" * 100, b"data: " + b"x" * 90 + b"\n"):
        with pytest.raises(package.AnswerNotUnderstood):
            read(*[piece] * 20, longest=1000)
    assert len(read(*[b"data: x\n\n"] * 200, longest=1000)) == 200


def test_idempotent_request_is_retried_with_growing_waits() -> None:
    fine = Answer(200, {}, "{}")
    assert run(calls.health(), lost(sent=True), lost(sent=True), fine) == ([1.0, 2.0], fine)
    with pytest.raises(package.ConnectionLost):
        run(calls.health(), *[lost(sent=True)] * 3)


def test_unsafe_request_is_retried_only_if_it_was_not_executed() -> None:
    once, fine = Call("POST", "/x", again=False), Answer(200, {}, "{}")
    assert run(once, lost(sent=False), problem(503, "queue_full"), fine)[1] is fine
    with pytest.raises(package.ConnectionLost):
        run(once, lost(sent=True), fine)
    with pytest.raises(package.Busy):
        run(once, Answer(504, {}, "no"), fine)


@pytest.mark.parametrize("code", ["journal_unreachable", "storage_unreachable", None])
def test_edit_is_not_retried_if_it_may_have_been_made(code: str | None) -> None:
    """What is behind the answer is there already, or comes: to undo twice is another thing."""
    refused = problem(503, code) if code else Answer(503, {}, "a proxy's own")
    undo = calls.edit("j", [{"op": "undo"}], None)
    with pytest.raises(package.Busy):
        run(undo, refused, Answer(200, {}, "{}"))
    fine = Answer(200, {}, "{}")
    assert run(undo, problem(429, "rate_limited"), problem(503, "machine_busy"), fine)[1] is fine


def test_deletion_edit_and_diarization_of_a_revision_name_it_and_else_name_none() -> None:
    for call in (calls.cancel("j", revision=3), calls.edit("j", [], 3), calls.diarize("j", {}, 3)):
        assert call.headers == {"If-Match": '"3"'}
    for call in (calls.cancel("j"), calls.edit("j", [], None), calls.diarize("j", {}, None)):
        assert "If-Match" not in call.headers


@pytest.mark.parametrize("call", [calls.cancel("j"), calls.delete_person("p")])
@pytest.mark.parametrize(
    ("before", "perhaps_done"),
    [
        (lost(sent=True), True),
        (problem(503, "journal_unreachable"), True),
        (lost(sent=False), False),
        (problem(429, "rate_limited"), False),
    ],
)
def test_not_found_after_a_delete_that_may_have_been_made_is_success_and_else_an_error(
    call: Call, before: Answer | Lost, perhaps_done: bool
) -> None:
    gone = problem(404, "job_not_found")
    if perhaps_done:
        assert run(call, before, gone)[1] is gone
    else:
        with pytest.raises(codes.JobNotFound):
            run(call, before, gone)
    with pytest.raises(codes.JobNotFound):
        run(calls.job("j"), before, gone)


def test_refusal_and_untrusted_certificate_are_not_retried() -> None:
    with pytest.raises(codes.AudioEmpty):
        run(calls.health(), problem(400, "audio_empty"))
    with pytest.raises(package.CertificateRefused):
        run(calls.health(), Lost(families.CertificateRefused("Expired."), sent=False))


def test_retry_after_is_read_as_seconds_or_date_and_too_long_a_wait_is_an_error() -> None:
    busy, fine = problem(429, "rate_limited", **{"retry-after": "7"}), Answer(200, {}, "{}")
    assert run(calls.health(), busy, fine) == ([8.0], fine)
    assert asked_s("Sat, 21 Nov 2026 00:00:09 GMT", NOW) == 9.0
    assert asked_s("Sat, 21 Nov 2020 00:00:09 GMT", NOW) == 0.0
    assert [asked_s(text, NOW) for text in (None, "soon", "-1", "²")] == [None] * 4
    with pytest.raises(codes.RateLimited) as caught:
        run(calls.health(), problem(429, "rate_limited", **{"retry-after": "86400"}))
    assert caught.value.retry_after == 86400


@given(st.integers(1, 60), st.floats(0, 1))
def test_wait_before_a_retry_is_at_least_half_the_first_and_at_most_the_longest(
    failures: int, chance: float
) -> None:
    wait = Retry(attempts=100, first_s=0.5, longest_s=30.0).wait_s(failures, chance)
    assert wait is not None
    assert 0.25 <= wait <= 30.0


def test_every_error_code_has_an_exception_of_its_family() -> None:
    assert set(codes.BY_CODE) == {error.code for error in errors.all_errors()}
    for error in errors.all_errors():
        status = STATUS[error.kind]
        family = type(problem(status, "a_later_code").error(NOW))
        assert isinstance(problem(status, error.code).error(NOW), family), error.code
    caught = problem(503, "queue_full", **{"retry-after": "3"}).error(NOW)
    assert isinstance(caught, codes.QueueFull)
    assert isinstance(caught, package.Busy)
    assert (caught.code, caught.status, caught.retry_after) == ("queue_full", 503, 3.0)
    assert str(caught) == "No. Do. (queue_full)"


def test_unknown_error_code_is_raised_as_its_family() -> None:
    assert type(problem(404, "page_not_found").error(NOW)) is package.NotFound
    assert type(problem(599, "odd").error(NOW)) is package.Failed
    assert problem(404, "page_not_found").error(NOW).code == "page_not_found"
    body = {"error": {"message": "No. Do.", "type": "x", "param": None, "code": "token_missing"}}
    openai = Answer(401, {}, json.dumps(body)).error(NOW)
    assert (type(openai), openai.detail) == (codes.TokenMissing, "No. Do.")


@pytest.mark.parametrize("name", ["../jobs/1", "a/./b", "..", "", "a//b"])
def test_name_of_model_that_is_another_address_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no model's name"):
        calls.delete_model(name)


def test_html_or_redirect_of_another_server_is_not_understood_but_its_503_is_busy() -> None:
    for answer in (Answer(404, {}, "<html>"), Answer(404, {}, "[]"), Answer(302, {}, "")):
        with pytest.raises(package.AnswerNotUnderstood):
            answer.error(NOW)
    with pytest.raises(package.AnswerNotUnderstood):
        Answer(200, {}, "<html>").body()
    assert isinstance(Answer(503, {}, "<html>").error(NOW), package.Busy)


def frames(*numbers: int) -> bytes:
    return b"".join(b"event: segment\nid: %d\ndata: {}\n\n" % number for number in numbers)


def test_job_is_followed_over_reconnects_without_gap_or_repeat() -> None:
    following = Following("a", None, AROUND)
    assert "Last-Event-ID" not in following.call.headers
    assert following.opened(Answer(200, STREAM, "")) is None
    assert [event.id for event in took(following, frames(1, 2) + b"id: 3\ndata: {")] == [1, 2]
    assert following.closed(families.ConnectionLost("cut")) == 1.0
    assert following.call.headers["Last-Event-ID"] == "2"
    following.opened(Answer(200, STREAM, ""))
    assert [event.id for event in took(following, frames(1, 2, 3))] == [3]
    assert following.closed() == 0.0, "told to come again, it comes at once"
    following.opened(Answer(200, STREAM, ""))
    (last,) = took(following, b'event: done\nid: 9\ndata: {"state": "done"}\n\n')
    assert last.ends
    assert following.ended


def test_following_ends_with_a_job_whose_last_event_was_received() -> None:
    """As where a proxy drops `Last-Event-ID`: all comes again, and nothing of it is new."""
    following = Following("a", 9, AROUND)
    following.opened(Answer(200, STREAM, ""))
    assert took(following, frames(1, 2)) == []
    assert not following.ended
    assert following.closed() == 1.0, "nothing new is no reason to come again at once"
    following.opened(Answer(200, STREAM, ""))
    assert took(following, frames(1, 2) + b"event: done\nid: 9\ndata: {}\n\n") == []
    assert following.ended


def test_unreachable_stream_is_given_up_unless_events_arrive_meanwhile() -> None:
    following = Following("a", 5, AROUND)
    cut = families.ConnectionLost("cut")
    assert [following.closed(cut), following.closed(cut)] == [1.0, 2.0]
    following.opened(Answer(200, STREAM, ""))
    took(following, frames(6))
    assert [following.closed(cut), following.closed(cut)] == [1.0, 2.0]
    with pytest.raises(package.ConnectionLost):
        following.closed(cut)


def test_temporarily_refused_stream_is_retried_and_a_final_refusal_not() -> None:
    following = Following("a", None, AROUND)
    busy = following.opened(problem(503, "queue_full", **{"retry-after": "4"}))
    assert following.closed(busy) == 5.0
    with pytest.raises(codes.JobNotFound):
        following.opened(problem(404, "job_not_found"))
    with pytest.raises(package.AnswerNotUnderstood):
        following.opened(Answer(200, {"content-type": "text/html"}, ""))
    following.opened(Answer(204, {}, ""))
    assert following.ended


def test_growing_recording_is_sent_at_its_first_length(tmp_path) -> None:
    path = new_file(tmp_path / "talk.wav", b"0123456789")
    told: list[tuple[int, int]] = []
    with Upload(path, sent=lambda *pair: told.append(pair)) as upload:
        assert upload.read(4) == b"0123"
        with path.open("ab") as file:
            file.write(b"more")
        assert upload.read() == b"456789"
        assert upload.read(4) == b""
        upload.rewind()
        assert upload.read() == b"0123456789"
    assert told == [(4, 10), (10, 10), (10, 10)]
    assert upload.name == "talk.wav"


def test_open_file_is_sent_from_its_position_and_stays_open(tmp_path) -> None:
    path = new_file(tmp_path / "talk.wav", b"0123456789")
    with path.open("rb") as file:
        file.seek(3)
        with Upload(file, name="b") as upload:
            assert (upload.total, upload.read()) == (7, b"3456789")
        assert not file.closed


def test_options_are_written_as_form_fields() -> None:
    options = {"diarize": False, "hotwords": ["Nagg", "Nell"], "num_speakers": 2, "prompt": None}
    assert calls.form(options) == {
        "diarize": "false",
        "hotwords": "Nagg, Nell",
        "num_speakers": "2",
    }


def test_sync_and_async_client_have_the_same_methods_and_parameters() -> None:
    def words(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    assert words(Client) == words(AsyncClient)


def test_exported_names_exist_and_values_are_frozen() -> None:
    for name in package.__all__:
        value = getattr(package, name)
        if dataclasses.is_dataclass(value):
            assert value.__dataclass_params__.frozen, name  # type: ignore[union-attr]


def test_client_imports_httpx_and_httpx_sse_and_later_websockets_and_typing_extensions_alone() -> (
    None
):
    at_once, ever = imports_of(package, oldest=(3, 9))
    needed = {"httpx", "httpx_sse", "vibevoice_asr_client"}
    assert at_once == needed
    assert ever == {*needed, "websockets", "typing_extensions"}


def test_load_test_imports_nothing_of_the_service() -> None:
    _, ever = imports_of(vibevoice_asr_load_test)
    assert "vibevoice_asr_client" in ever
    assert "sidecar" not in ever


def imports_of(package: ModuleType, oldest: tuple[int, int] = (3, 11)) -> tuple[set[str], set[str]]:
    """What a package needs of others when it is imported, and at any time."""
    at_once, ever = set(), set()
    for module in Path(package.__file__ or "").parent.glob("*.py"):
        tree = ast.parse(module.read_text("utf-8"), feature_version=oldest)
        at_once |= {name for node in tree.body for name in imported(node)}
        ever |= {name for node in ast.walk(tree) for name in imported(node)}
    return at_once - sys.stdlib_module_names, ever - sys.stdlib_module_names


def imported(node: ast.AST) -> set[str]:
    """The packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {name.name.partition(".")[0] for name in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return set()


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (("One.", "Two."), "One. Two."),
        (("我们去北京", "然后吃饭。", "OK", "好"), "我们去北京然后吃饭。 OK 好"),
        (("東京に", "行く"), "東京に行く"),
        (("안녕", "하세요"), "안녕 하세요"),
    ],
)
def test_text_of_a_transcript_has_the_spaces_of_its_script_between_segments(
    texts: tuple[str, ...], whole: str
) -> None:
    said = {"speaker": "Speaker_0", "start_time": 0.0, "end_time": 1.0}
    metadata = {"duration": 9.0, "language": "zh", "engine": "x", "model_precision": "fp32"}
    metadata |= {"diarized": False, "num_speakers": 1, "warnings": []}
    body = {"segments": [{**said, "text": text} for text in texts], "metadata": metadata}
    assert transcript_of(body).text == whole
