"""What a client would like, by the letter of RFC 7240."""

import pytest
from executed_lines import executed_lines

from sidecar.api.http.request_headers import wants_async

ASKED = (
    *(["respond-async"], ["Respond-Async"], ["RESPOND-ASYNC , wait=10"]),
    *(["wait=10, respond-async"], ["wait=10", "respond-async"], [",, respond-async"]),
    *(["respond-async; priority=5"], ["respond-async;"], ['respond-async=""']),
    ['x="a, \\"b", respond-async'],
)
NOT_ASKED = (
    *([], [""], ["respond-async-not"], ["not-respond-async"], ["respond async"]),
    *(['x="respond-async"'], ['x="a, respond-async, b"'], ["x=respond-async"]),
    *(["wait=5;respond-async"], ["wait=5; a=b ; respond-async"], ["return=minimal"]),
    *(["respond-async=no"], ["respond-async=no, respond-async"]),
    ['x="never closed, respond-async'],
)


@pytest.mark.parametrize(
    ("headers", "wanted"), [(one, one in ASKED) for one in (*ASKED, *NOT_ASKED)]
)
def test_prefer_respond_async_is_parsed_by_rfc_7240(headers: list[str], wanted: bool) -> None:
    assert wants_async(headers) is wanted


@pytest.mark.parametrize("piece", [" ", ";", "; ", "a=", ",", '"', "a ", "a;", 'a="\\'])
def test_work_for_a_prefer_header_is_linear_in_its_length(piece: str) -> None:
    few, many = (executed_lines(lambda: wants_async([piece * count])) for count in (300, 3000))  # noqa: B023
    assert many < 11 * few
