"""Upstreams: failures of the servers of the engine 'upstream'."""

from sidecar.errors import EngineFailed, ErrorKind, Fault


class UpstreamError(EngineFailed, kind=ErrorKind.BUSY):
    """Failure of a server of the engine 'upstream'."""

    fault = Fault.UPSTREAM
    counts_as_death = False


class UpstreamUnreachable(UpstreamError, code="upstream_unreachable"):
    """Upstreams of which none accepts a connection, or that lack what a recording needs."""

    default_detail = "No upstream answers."
    default_hint = "Start the server that VIBEVOICE_UPSTREAM names, or check its address and port."
    default_retry_after = 5


class UpstreamBusy(UpstreamError, code="upstream_busy"):
    """Upstream that stayed busy for longer than a recording of this length may wait."""

    default_detail = "The upstream is busy."
    default_hint = "Try again after the time in Retry-After, or add a second upstream."
    default_retry_after = 10
    rest_s = 1.0
    """Seconds for which it asked to be left alone."""


class UpstreamLost(UpstreamUnreachable, code="upstream_lost"):
    """Upstream that failed on a recording, after which none could be reached."""

    counts_as_death = True
    default_detail = "An upstream failed while it transcribed this recording; none answers now."
    default_hint = "Check the log of the server: the recording may have ended it."


class UpstreamTimeout(UpstreamError, code="upstream_timeout"):
    """Upstream that took longer than a recording of this length may take."""

    timed_out = True
    counts_as_death = True
    default_detail = "The upstream took too long."
    default_hint = "Check that server; if it is only slow, add a second upstream."
    default_retry_after = 10


class UpstreamFailed(UpstreamError, code="upstream_failed"):
    """Upstream that failed repeatedly, or reported an internal error."""

    counts_as_death = True
    default_detail = "The upstream failed while it transcribed this recording."
    default_hint = "Check the log of that server; this service itself did not fail."
    default_retry_after = 5


class UpstreamRefused(UpstreamError, code="upstream_refused", kind=ErrorKind.FAILED):
    """Upstream that takes no request: its address, its key or its models are not right."""

    default_detail = "The upstream rejected the request."
    default_hint = "Check VIBEVOICE_UPSTREAM_DIALECT, VIBEVOICE_UPSTREAM_MODEL and the key."


class UpstreamRefusedRecording(UpstreamRefused, code="upstream_refused_recording"):
    """Upstream that rejects a recording or its options."""

    fault = Fault.RECORDING
    default_detail = "The upstream rejected the recording or an option of the request."
    default_hint = "Check the options of the request; the detail has the answer of that server."


class UpstreamGarbled(UpstreamError, code="upstream_garbled", kind=ErrorKind.FAILED):
    """Upstream response that cannot be parsed."""

    counts_as_death = True
    default_detail = "The upstream's response cannot be parsed."
    default_hint = "Check that VIBEVOICE_UPSTREAM_DIALECT matches the kind of that server."
