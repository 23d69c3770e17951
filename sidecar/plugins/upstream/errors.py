"""Upstreams: failures of the servers of the engine 'upstream'."""

from sidecar.errors import EngineFailed, ErrorKind


class UpstreamError(EngineFailed, kind=ErrorKind.BUSY):
    """Failure of a server of the engine 'upstream'."""


class UpstreamUnreachable(UpstreamError, code="upstream_unreachable"):
    """Upstreams of which none accepts a connection."""

    ends_requests_only = True
    default_detail = "No upstream answers."
    default_hint = "Start the server that VIBEVOICE_UPSTREAM names, or check its address and port."
    default_retry_after = 5


class UpstreamBusy(UpstreamError, code="upstream_busy"):
    """Upstream that stayed busy for longer than a recording of this length may wait."""

    ends_requests_only = True
    default_detail = "The upstream is busy."
    default_hint = "Try again after the time in Retry-After, or add a second upstream."
    default_retry_after = 10


class UpstreamLost(UpstreamUnreachable, code="upstream_lost"):
    """Upstream that failed on a recording, after which none could be reached."""

    counts_as_death = True
    default_detail = "An upstream failed while it transcribed this recording; none answers now."
    default_hint = "Check the log of the server: the recording may have ended it."


class UpstreamTimeout(UpstreamError, code="upstream_timeout"):
    """Upstream that took longer than a recording of this length may take."""

    timed_out = True
    default_detail = "The upstream took too long."
    default_hint = "Check that server; if it is only slow, add a second upstream."
    default_retry_after = 10


class UpstreamFailed(UpstreamError, code="upstream_failed"):
    """Upstream that failed repeatedly, or reported an internal error."""

    default_detail = "The upstream failed while it transcribed this recording."
    default_hint = "Check the log of that server; this service itself did not fail."
    default_retry_after = 5


class UpstreamRefused(UpstreamError, code="upstream_refused", kind=ErrorKind.FAILED):
    """Upstream that rejects the request."""

    default_detail = "The upstream rejected the request."
    default_hint = "Check VIBEVOICE_UPSTREAM_DIALECT, VIBEVOICE_UPSTREAM_MODEL and the key."


class UpstreamGarbled(UpstreamError, code="upstream_garbled", kind=ErrorKind.FAILED):
    """Upstream response that cannot be parsed."""

    default_detail = "The upstream's response cannot be parsed."
    default_hint = "Check that VIBEVOICE_UPSTREAM_DIALECT matches the kind of that server."
