"""Headers have one size limit on all wires, and what browsers, SDKs and proxies send fits."""

import pytest
from service_process import Server, check_discreet

from sidecar import errors
from sidecar.api.http.error_responses import problem_body
from sidecar.api.http.request_headers import (
    MAX_ALL_HEADERS_BYTES,
    MAX_HEADER_BYTES,
    check_header_sizes,
)

BRANDS = ", ".join(f'"Not a Brand {number}";v="{number}.0.0.0"' for number in range(20))
JWT = ".".join("eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9" * many for many in (1, 200, 3))
REAL: dict[str, dict[str, str]] = {
    "a browser": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 " + "Part/1.2.3" * 50,
        "Sec-CH-UA-Full-Version-List": BRANDS,
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
        "Accept-Language": ",".join(f"{one}-{two};q=0.5" for one in "abcdefgh" for two in "abcde"),
        "Cookie": "; ".join(f"other-app-{number}={'x' * 4000}" for number in range(20)),
        "Referer": "http://127.0.0.1:8765/?" + "q" * 8000,
    },
    "tracing": {
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "tracestate": ",".join(f"vendor{number}={'x' * 200}" for number in range(32)),
        "baggage": ",".join(f"key{number}={'x' * 100}" for number in range(64)),
    },
    "an SDK": {
        "X-Stainless-Lang": "python",
        "X-Stainless-Runtime-Version": "3.12.0",
        "OpenAI-Organization": "org-" + "x" * 40,
        "Idempotency-Key": "k" * 255,
    },
}
PROXIED = {
    "X-Forwarded-For": ", ".join(f"2001:db8::{number:x}" for number in range(40)),
    "X-Forwarded-Client-Cert": f'By=spiffe://x;Cert="{"%0A".join(["A" * 64] * 30)}"',
    "X-Amzn-Oidc-Data": JWT,
    "Cf-Access-Jwt-Assertion": JWT,
    **dict.fromkeys(
        (
            *("X-Amzn-Mtls-Clientcert", "X-Amzn-Request-Context", "X-Forwarded-Tls-Client-Cert"),
            *("X-SSL-Client-Cert", "X-Client-Cert", "Client-Cert", "X-ARR-ClientCert"),
            *("X-Envoy-Peer-Metadata", "X-Pomerium-Jwt-Assertion", "X-authentik-jwt"),
            *("X-Serverless-Authorization", "X-Id-Token", "X-Access-Token", "X-Original-URI"),
        ),
        "x" * 4000,
    ),
}


@pytest.mark.parametrize("who", REAL)
def test_headers_of_real_clients_are_accepted(who: str, server: Server) -> None:
    assert server.client.get("/v1/jobs", headers=REAL[who]).status_code == 200


def test_headers_that_proxies_add_are_accepted() -> None:
    check_header_sizes([(name.lower().encode(), value.encode()) for name, value in PROXIED.items()])
    check_header_sizes([(b"authorization", b"Bearer " + JWT.encode())])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", f"/v1/{name}") for name in ("jobs", "models", "queue/status")),
        *(("GET", f"/{name}") for name in ("admin/models", "health", "no-such-address")),
        ("POST", "/v1/audio/transcriptions"),
    ],
)
def test_too_large_header_returns_431_in_the_error_format_of_its_address(
    method: str, path: str, server: Server
) -> None:
    for name in ("If-None-Match", "Range", "X-Anything"):
        answer = server.client.request(method, path, headers={name: "x" * MAX_HEADER_BYTES})
        assert answer.status_code == 431, answer.text
        said = answer.json()
        said = said["error"] if isinstance(said.get("error"), dict) else said
        assert errors.HeaderTooLarge.code in (said["code"], said.get("error"))
        assert name.lower() in answer.text
        check_discreet(answer.text)


def test_limits_of_one_and_of_all_headers_count_names_and_values_and_cookies_only_in_all() -> None:
    fits = b"x-name", b"x" * (MAX_HEADER_BYTES - 6)
    check_header_sizes([fits] * 100)
    with pytest.raises(errors.HeaderTooLarge, match="'x-name' has 1025 bytes; the limit is 1024"):
        check_header_sizes([(b"X-Name", fits[1] + b"x")])
    check_header_sizes([(b"cookie", b"x" * (MAX_ALL_HEADERS_BYTES - 6))])
    with pytest.raises(errors.HeaderTooLarge, match="The headers have"):
        check_header_sizes([(b"cookie", b"x" * (MAX_ALL_HEADERS_BYTES - 6)), fits])
    assert problem_body(errors.HeaderTooLarge())["title"] == "Request Header Fields Too Large"
