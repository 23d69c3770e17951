"""How somebody stands, in headers: `RateLimit-Policy` and `RateLimit`.

As draft 11 of the IETF's httpapi group has them (structured fields: `q` quota, `w` window in
seconds, `r` remaining, `t` seconds until it is whole again).
"""

from __future__ import annotations

from starlette.types import Message, Send

from sidecar.auth.limits import Standing

NAMES = ("RateLimit", "RateLimit-Policy")
_POLICY = '"requests"'


def fields(standing: Standing) -> list[tuple[bytes, bytes]]:
    """The two headers."""
    rate = standing.rate
    return [
        (b"ratelimit-policy", f"{_POLICY};q={rate.amount:.0f};w={rate.window_s:.0f}".encode()),
        (b"ratelimit", f"{_POLICY};r={standing.left};t={standing.full_in_s}".encode()),
    ]


def saying(send: Send, standing: Standing) -> Send:
    """``send``, with the headers in the answer."""

    async def say(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *fields(standing)]}
        await send(message)

    return say
