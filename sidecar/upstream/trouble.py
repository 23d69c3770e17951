"""What goes wrong with an upstream, and what is to be done: statuses and texts into steps. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from sidecar import errors

LONGEST_RETRY_AFTER_S = 300.0
_LONGEST_SAID = 200
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading an answer raises that is not what it should be."""
_TOO_MUCH = re.compile(
    r"context length|encoder cache|too (long|large|big)|exceeds? the (max|limit)|max_model_len"
    r"|maximum (allowed )?(file ?size|duration|content size|audio)|duration.{0,40}exceed",
    re.IGNORECASE,
)
"""How servers say that a recording is too long or too large, whatever the status is (vLLM: 400)."""


class Step(Enum):
    """What to do with a piece that was not heard."""

    AGAIN = auto()
    """The server is in trouble: it stands aside for a while, another is tried first."""
    LATER = auto()
    """It has too much to do, and says so: no attempt was lost."""
    ELSEWHERE = auto()
    """It will not take this, ever: another might."""
    SMALLER = auto()
    """Too long or too large for it."""
    ANEW = auto()
    """Ask the same server at once, in another way."""
    NEVER = auto()
    """No server would: the recording or the request is to blame."""


class Trouble(Exception):
    """A piece was not heard: what is to be done, and the error where nothing helps.

    ``sent``: whether the server had begun to read audio, so that the audio may be to blame.
    """

    def __init__(
        self,
        step: Step,
        error: errors.SidecarError,
        retry_after: float | None = None,
        *,
        sent: bool = True,
    ) -> None:
        self.step = step
        self.error = error
        self.retry_after = retry_after
        self.sent = sent
        super().__init__(error.detail)


def of_status(status: int, headers: Mapping[str, str], body: bytes) -> Trouble:
    """What an answer other than 200 means, in any dialect."""
    said = said_in(body)
    answered = f"The upstream answered {status}{f': {said}' if said else '.'}"
    if status in (401, 403):
        return Trouble(
            Step.ELSEWHERE,
            errors.UpstreamRefused(
                f"The upstream answered {status}: it does not know this key.",
                hint="Set VIBEVOICE_UPSTREAM_KEY or --upstream-key-file to a key that it takes.",
            ),
        )
    if status == 413 or _TOO_MUCH.search(said):
        return Trouble(Step.SMALLER, errors.UpstreamRefused(answered))
    if status == 429 and "insufficient_quota" in said_in(body, "code"):
        return Trouble(Step.ELSEWHERE, errors.UpstreamRefused(answered))
    after = retry_after(headers)
    if status == 429 or (status == 503 and after is not None):
        after = 1.0 if after is None else after
        return Trouble(Step.LATER, errors.UpstreamBusy(retry_after=max(1, round(after))), after)
    if status in (408, 409, 425) or status >= 500:
        return Trouble(Step.AGAIN, errors.UpstreamFailed(answered))
    return Trouble(Step.ELSEWHERE, errors.UpstreamRefused(answered))


def of_error(error: Mapping[str, Any] | str) -> Trouble:
    """What an error inside a 200 means, in a body or in mid-stream."""
    said = said_in(json.dumps({"error": error}).encode())
    status = error.get("code") if isinstance(error, Mapping) else None
    if isinstance(status, int) and 400 <= status < 600:
        return of_status(status, {}, json.dumps({"error": dict(error)}).encode())  # type: ignore[arg-type]
    if _TOO_MUCH.search(said):
        return Trouble(Step.SMALLER, errors.UpstreamRefused(f"The upstream said: {said}"))
    return Trouble(Step.AGAIN, errors.UpstreamFailed(f"The upstream said: {said}"))


def garbled(what: str) -> Trouble:
    """An answer that is none."""
    return Trouble(Step.AGAIN, errors.UpstreamGarbled(f"The upstream's answer {what}."))


def gone(what: str) -> Trouble:
    """A server that went away, or fell silent, in the middle."""
    return Trouble(Step.AGAIN, errors.UpstreamFailed(f"The upstream {what}."))


def untrusted() -> errors.SidecarError:
    """What is told where a server's certificate is why there is no connection."""
    return errors.UpstreamRefused(
        "The upstream's certificate is not one that is trusted.",
        hint="Set VIBEVOICE_UPSTREAM_CA to the file with the certificate of who signed it.",
    )


def named(error: errors.SidecarError, server: str) -> errors.SidecarError:
    """The same error with the server's name, where it is about one."""
    detail = error.detail.replace("The upstream", f"The upstream {server}", 1)
    if isinstance(error, errors.UpstreamUnreachable) and detail == error.default_detail:
        detail = f"The upstream {server} does not answer."
    return type(error)(detail, hint=error.hint, retry_after=error.retry_after)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, within reason; None without one (or with a date)."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S) if seconds == seconds else None


def said_in(body: bytes, key: str = "message") -> str:
    """What an error's body says, on one line and short: OpenAI's form, FastAPI's, a problem."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if isinstance(value, dict):
        value = value.get("error", value)
    if isinstance(value, dict):
        value = next((value[name] for name in (key, "detail", "message") if name in value), "")
    if isinstance(value, (list, dict)):
        value = json.dumps(value)
    said = "".join(one if one.isprintable() else " " for one in str(value or ""))
    return " ".join(said.split())[:_LONGEST_SAID]
