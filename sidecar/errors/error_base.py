"""In general: base class of all errors, their kinds, and errors of no special subject."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar

MAX_CAUSE_CHARS = 400
"""Maximum of a library's message in an error: libraries write paragraphs; the log has all of it."""


class Fault(StrEnum):
    """What is to blame for an error in a job: its recording, or what it needs for now.

    What each does to the job: docs/operations.md, "Faults".
    """

    RECORDING = "recording"
    """The recording or its options: the job fails at once."""
    DISK = "disk"
    SPOOL = "spool"
    STORAGE = "storage"
    """Folder, share or bucket of recordings."""
    DATABASE = "database"
    MEMORY = "memory"
    """Memory, processes, threads or descriptors of the machine."""
    ENGINE = "engine"
    """The engine, and what loads it: its files, its device."""
    DEVICE = "device"
    """Memory of the engine's device, which others have for now."""
    UPSTREAM = "upstream"
    DECODER = "decoder"
    UNKNOWN = "unknown"
    """A bug of this service, for example."""


class ErrorKind(StrEnum):
    """Kind of an error; transports map it to a status, a close code or an exit code."""

    MALFORMED = "malformed"
    UNPROCESSABLE = "unprocessable"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    TIMEOUT = "timeout"
    NOT_FOUND = "not_found"
    METHOD = "method"
    UPGRADE = "upgrade"
    FORBIDDEN = "forbidden"
    UNAUTHORIZED = "unauthorized"
    CONFLICT = "conflict"
    PRECONDITION = "precondition"
    RANGE = "range"
    CANCELLED = "cancelled"
    LIMITED = "limited"
    BUSY = "busy"
    STORAGE_FULL = "storage_full"
    WONT_FIT = "wont_fit"
    FAILED = "failed"


def cause_of(error: Exception) -> str:
    """Return the message of another library's error on one line, cut at `MAX_CAUSE_CHARS`."""
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_CAUSE_CHARS else f"{text[: MAX_CAUSE_CHARS - 1]}…"


class SidecarError(Exception):
    """Base class of all errors of this service; each class has a stable ``code`` and a ``kind``.

    ``detail``: what was wrong. ``hint``: what to do. ``retry_after``: seconds until a retry.
    ``fault``: what is to blame, if that is known better than from the class.
    """

    code: ClassVar[str] = "internal"
    kind: ClassVar[ErrorKind] = ErrorKind.FAILED
    default_detail: ClassVar[str] = "Internal error of the service."
    default_hint: ClassVar[str] = (
        "Try again; if the error repeats, report it with the service's log."
    )
    default_retry_after: ClassVar[int | None] = None
    fault: Fault = Fault.UNKNOWN
    counts_as_death: ClassVar[bool] = False
    """True if it counts as the death of a service in a job: the recording may have caused it."""

    def __init_subclass__(cls, *, code: str | None = None, kind: ErrorKind | None = None) -> None:
        if code is not None:
            cls.code = code
        if kind is not None:
            cls.kind = kind

    def __init__(
        self,
        detail: str | None = None,
        *,
        hint: str | None = None,
        retry_after: int | None = None,
        fault: Fault | None = None,
    ) -> None:
        self.detail = detail or self.default_detail
        self.hint = hint or self.default_hint
        self.retry_after = retry_after if retry_after is not None else self.default_retry_after
        if fault is not None:
            self.fault = fault
        super().__init__(self.detail)

    def hint_on(self, page: str) -> str:
        """Return the hint with a reference to ``page`` of the documentation instead of /docs.

        It is for WebSockets, which /docs does not describe.
        """
        return self.hint.replace(" at /docs.", f" in {page}.")

    def to_wire(self) -> dict[str, Any]:
        """Return the error as plain values, for another process of this service."""
        return {
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
            "retry_after": self.retry_after,
            "fault": self.fault.value,
        }


class BadRequest(SidecarError, kind=ErrorKind.MALFORMED):
    """Error in the request itself."""

    fault = Fault.RECORDING


class NotFound(SidecarError, code="not_found", kind=ErrorKind.NOT_FOUND):
    """Missing resource."""

    default_detail = "There is nothing at this path."
    default_hint = "The paths of this service are listed at /docs."


class Unauthorized(SidecarError, kind=ErrorKind.UNAUTHORIZED):
    """Failed authentication."""


def all_errors(error_class: type[SidecarError] = SidecarError) -> Iterator[type[SidecarError]]:
    """Yield every error class with a code of its own, each followed by its subclasses."""
    if "code" in vars(error_class):
        yield error_class
    for child in error_class.__subclasses__():
        yield from all_errors(child)


def from_wire(values: dict[str, Any]) -> SidecarError:
    """Return the error of `SidecarError.to_wire`; an unknown code becomes a `SidecarError`.
    Without ``fault`` it is that of its class."""
    known = {error.code: error for error in all_errors()}
    error = known.get(values.get("code", ""), SidecarError)
    hint, retry_after = values.get("hint"), values.get("retry_after")
    fault = Fault(values["fault"]) if "fault" in values else None
    return error(values.get("detail"), hint=hint, retry_after=retry_after, fault=fault)
