"""What a client would like, by the letter of RFC 7240."""

from __future__ import annotations

import pytest
from executed_lines import executed_lines

from sidecar.api.http.request_headers import wants_async


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (["respond-async"], True),
        (["Respond-Async"], True),
        (["RESPOND-ASYNC , wait=10"], True),
        (["wait=10, respond-async"], True),
        (["wait=10", "respond-async"], True),
        (["respond-async; priority=5"], True),
        (["respond-async;"], True),
        (['respond-async=""'], True),
        ([",, respond-async"], True),
        (['x="a, \\"b", respond-async'], True),
        ([], False),
        ([""], False),
        (["respond-async-not"], False),
        (["not-respond-async"], False),
        (["respond async"], False),
        (['x="respond-async"'], False),
        (['x="a, respond-async, b"'], False),
        (["x=respond-async"], False),
        (["wait=5;respond-async"], False),
        (["wait=5; a=b ; respond-async"], False),
        (["respond-async=no"], False),
        (["respond-async=no, respond-async"], False),
        (["return=minimal"], False),
        (['x="never closed, respond-async'], False),
    ],
)
def test_prefer_respond_async_is_parsed_by_rfc_7240(headers: list[str], wanted: bool) -> None:
    assert wants_async(headers) is wanted


@pytest.mark.parametrize("piece", [" ", ";", "; ", "a=", ",", '"', "a ", "a;", 'a="\\'])
def test_work_for_a_prefer_header_is_linear_in_its_length(piece: str) -> None:
    few, many = (executed_lines(lambda: wants_async([piece * count])) for count in (300, 3000))  # noqa: B023
    assert many < 11 * few
