"""What both clients say to httpx in the same words."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Dict, Mapping, Optional

import httpx

from vibevoice_asr_client import calls
from vibevoice_asr_client.calls import Answer, Call
from vibevoice_asr_client.errors import CertificateRefused, ConnectionLost, ServiceUnreachable
from vibevoice_asr_client.flows import Lost, Surroundings
from vibevoice_asr_client.retry import Retry
from vibevoice_asr_client.tls import HINT, Trust, refusal, unreachable
from vibevoice_asr_client.uploads import CONTENT_TYPE, Upload

CONNECT_S = 10.0
MOST_PORT = 65535
SILENCE_S = 60.0
"""Longest silence of the service, which takes seconds to look at a recording that others await,
and says on a stream every few that it is there."""

FAREWELL_S = 10.0
"""So long a service may take to end a job that nobody waits for any more."""


def surroundings(retry: Retry) -> Surroundings:
    """The world as it is."""
    return Surroundings(retry, random.random, lambda: datetime.now(timezone.utc))


def options(url: str, token: Optional[str], silence_s: float, trust: Trust) -> Dict[str, Any]:
    """The arguments of httpx's clients. May ask the service for its certificate.

    A proxy of the environment is for what is far away; the service is near.

    Raises:
        ServiceUnreachable: ``url`` is no address.
        ClientError: what `Trust.context` raises.
    """
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ServiceUnreachable(f"'{url}' is no address: {error}.") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise ServiceUnreachable(f"'{url}' is no address: it begins http:// or https://.")
    if (base.port or 0) > MOST_PORT:
        raise ServiceUnreachable(f"'{url}' is no address: there is no such port.")
    verify = trust.context(url)
    return {
        "base_url": base,
        "headers": calls.authorization(token),
        "timeout": httpx.Timeout(silence_s, connect=min(CONNECT_S, silence_s)),
        "trust_env": False,
        "verify": True if verify is None else verify,
    }


def request(call: Call, upload: Optional[Upload] = None) -> Dict[str, Any]:
    """The arguments of one request."""
    said: Dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "headers": dict(call.headers),
        "params": dict(call.params) or None,
    }
    if upload is not None:
        upload.rewind()
        said["data"] = dict(call.fields)
        said["files"] = {"audio": (upload.name, upload, CONTENT_TYPE)}
    elif call.body is not None:
        said["json"] = dict(call.body)
    return said


def whole(call: Call, response: httpx.Response) -> Answer:
    """An answer that was read to its end."""
    if call.text or not response.is_success:
        return answer(response, response.text)
    return replace(answer(response), content=response.content)


def answer(response: httpx.Response, text: str = "") -> Answer:
    """An answer of httpx's in our words."""
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, text)


def lost(error: httpx.TransportError, url: str, answered: bool) -> Lost:
    """What it means that there was no answer; ``answered``: one came from there before."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        why = refusal(error)
        if why is not None:
            said = f"The certificate at {url} is not trusted: {why}."
            return Lost(CertificateRefused(said, hint=HINT), sent=False)
        return Lost(unreachable(url, error), sent=False)
    if isinstance(error, httpx.UnsupportedProtocol):
        return Lost(ServiceUnreachable(f"'{url}' is no address: {error}."), sent=False)
    sent = not isinstance(error, httpx.PoolTimeout)
    hint = "If it serves TLS, its address begins https://."
    if answered or not url.startswith("http:"):
        hint = ""
    said = f"The service at {url} broke off ({type(error).__name__})."
    return Lost(ConnectionLost(said, hint=hint), sent=sent)
