"""Behind a proxy: whose word of who asks is believed, and what holds all the same."""

import time
from typing import Any

import pytest
from module_services import service_of_module
from service_process import Server, check_problem, wait_until
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

TOKEN = "correct-horse-battery-staple"
OURS: dict[str, Any] = {"token": TOKEN, "allowed_hosts": "speech.example"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FORWARDED = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}


proxied = service_of_module(limit_requests=4, **OURS, forwarded_allow_ips="127.0.0.1")
"""Four requests a minute for an owner, sixteen for an address."""


untrusting = service_of_module(**OURS)


def test_request_through_a_trusted_proxy_is_checked_by_host_origin_scheme_and_token(
    proxied: Server,
) -> None:
    sent = FORWARDED | {"X-Forwarded-For": "203.0.113.1"} | BEARER
    check_problem(
        proxied.client.get("/v1/jobs", headers=sent | {"Host": "evil.example"}),
        403,
        "host_not_allowed",
    )
    ours = {"Host": "speech.example", "Origin": "https://speech.example"}
    assert proxied.client.get("/v1/jobs", headers=sent | ours).status_code == 200
    for page in ("http://speech.example", "https://evil.example"):
        answer = proxied.client.get("/v1/jobs", headers=sent | ours | {"Origin": page})
        check_problem(answer, 403, "origin_not_allowed")
    check_problem(proxied.client.get("/v1/jobs", headers=FORWARDED), 401, "token_missing")
    path = proxied.client.post("/transcribe", json={"audio_path": "/etc/hostname"}, headers=sent)
    check_problem(path, 403, "audio_path_forbidden")


def test_last_forwarded_address_behind_a_proxy_has_its_own_rate_limit(proxied: Server) -> None:
    def ask(address: str) -> int:
        return proxied.client.get("/health", headers={"X-Forwarded-For": address}).status_code

    def let_in(address: str) -> int:
        """How often, until it is refused; on a slow machine it has some more meanwhile."""
        return next(number for number in range(100) if ask(address) == 429)

    began = time.monotonic()  # real time: what the service forgives meanwhile is reckoned with
    at_once = let_in("203.0.113.2")
    assert at_once >= 16
    assert ask("203.0.113.3") == 200
    more = let_in("10.0.0.1, 203.0.113.2")
    # real time: as above
    meanwhile = (time.monotonic() - began) * 16 / 60
    assert at_once + more <= 16 + meanwhile, "the last one counts, which the proxy wrote"


def test_forwarded_headers_of_a_proxy_that_is_not_trusted_are_ignored(untrusting: Server) -> None:
    sent = FORWARDED | BEARER | {"Host": "speech.example"}
    assert untrusting.client.get("/v1/jobs", headers=sent).status_code == 200
    page = {"Origin": "https://speech.example"}
    check_problem(untrusting.client.get("/v1/jobs", headers=sent | page), 403, "origin_not_allowed")


def test_log_of_a_refused_request_has_address_and_route_and_nothing_private(
    proxied: Server, untrusting: Server
) -> None:
    def refused(address: str, method: str, path: str, **sent: str) -> None:
        headers = FORWARDED | {"X-Forwarded-For": address} | sent
        assert proxied.client.request(method, path, headers=headers).status_code in (401, 403, 429)

    refused("203.0.113.20", "GET", "/v1/jobs")
    refused("2001:db8::7", "DELETE", "/v1/jobs/name-of-a-person?key=in-the-address")
    refused("203.0.113.21", "POST", "/transcribe", Authorization="Bearer somebody-elses-secret")
    refused("203.0.113.22", "GET", "/v1/jobs", Host="evil.example")
    refused("no-address-of-anybody" * 42, "PROPFIND", "/nowhere/at/all")
    while proxied.client.get("/health", headers={"X-Forwarded-For": "203.0.113.23"}).is_success:
        pass
    with pytest.raises(InvalidStatus):
        connect(
            f"ws://127.0.0.1:{proxied.port}/v1/live",
            additional_headers={"X-Forwarded-For": "203.0.113.24"},
        )
    untrusting.client.get("/v1/jobs", headers=FORWARDED)
    for server, line in (
        (proxied, "answered token_missing to 203.0.113.20, GET /v1/jobs, request "),
        (proxied, "answered token_missing to 2001:db8::7, DELETE /v1/jobs/{job_id}, request "),
        (proxied, "answered token_invalid to 203.0.113.21, POST /transcribe, request "),
        (proxied, "answered host_not_allowed to 203.0.113.22, GET /v1/jobs, request "),
        (proxied, "answered token_missing to an unknown address, other (none), request "),
        (proxied, "answered rate_limited to 203.0.113.23, GET /health, request "),
        (proxied, "answered token_missing to 203.0.113.24, WebSocket /v1/live"),
        (untrusting, "answered token_missing to 127.0.0.1, GET /v1/jobs, request "),
    ):
        wait_until(lambda s=server, t=line: t in s.log(), line)
    for private in (
        *("name-of-a-person", "in-the-address", "somebody-elses-secret"),
        "no-address-of-anybody",
    ):
        assert private not in proxied.log()
