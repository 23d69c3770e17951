"""What can go wrong, as exceptions to catch: by what to do about it here, by code in `codes`.

`codes` has a class for every code of docs/errors.md, each below one of the families here. A code
that this version of the client does not know is raised as its family.
"""

from __future__ import annotations

from typing import ClassVar, Optional


class ClientError(Exception):
    """Everything that this package raises. ``hint`` says what to do, where that is known."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        self.detail = detail
        self.hint = hint
        super().__init__(detail)


class ServiceUnreachable(ClientError):
    """Nothing answers at the address, or the address is none."""


class ConnectionLost(ServiceUnreachable):
    """The connection broke off, again and again; what was asked for may have been done or not."""


class CertificateRefused(ServiceUnreachable):
    """The service shows a certificate that is not believed."""


class TrustInvalid(ClientError):
    """What was said about certificates is not possible."""


class AnswerNotUnderstood(ClientError):
    """What answers is not this service, or another version of it."""


class InsecureWarning(UserWarning):
    """Any certificate is accepted: recordings go to whatever server answers."""


class ServiceError(ClientError):
    """The service refused the request. ``code`` does not change between versions; ``detail`` may.

    ``status``: of HTTP; None where a job failed. ``retry_after``: seconds, where trying again may
    help. ``request_id``: what the service's log has.
    """

    code: str = ""
    known_code: ClassVar[Optional[str]] = None

    def __init__(
        self,
        detail: str,
        *,
        code: Optional[str] = None,
        hint: str = "",
        status: Optional[int] = None,
        retry_after: Optional[float] = None,
        request_id: str = "",
    ) -> None:
        super().__init__(detail, hint=hint)
        self.code = code if code is not None else self.known_code or ""
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        said = " ".join(part for part in (self.detail, self.hint) if part)
        return f"{said} ({self.code})" if self.code else said


class Refused(ServiceError):
    """The request or the recording cannot be used as it is: trying again changes nothing."""


class TooLarge(Refused):
    """Larger or longer than the service takes."""


class Unauthorized(ServiceError):
    """No token, or none that counts."""


class Forbidden(ServiceError):
    """The token does not allow it."""


class NotFound(ServiceError):
    """There is no such thing, or it is another owner's."""


class Conflict(ServiceError):
    """It does not go with what is so now."""


class Cancelled(Conflict):
    """Somebody ended the job."""


class Busy(ServiceError):
    """Not now: the queue is full, or it stops, or this is too often. Try after ``retry_after``."""


class OutOfSpace(ServiceError):
    """The service's memory or disk cannot hold it."""


class Failed(ServiceError):
    """The service's own fault."""
