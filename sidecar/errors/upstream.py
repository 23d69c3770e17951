"""Upstreams: the servers that hear for the engine of that name."""

from __future__ import annotations

from sidecar.errors.error_base import Kind, SidecarError


class UpstreamError(SidecarError):
    """The server that hears for the engine 'upstream' did not."""

    kind = Kind.BUSY


class UpstreamUnreachable(UpstreamError):
    """No connection, to none of them."""

    code = "upstream_unreachable"
    default_detail = "No upstream answers."
    default_hint = "Start the server that VIBEVOICE_UPSTREAM names, or check its address and port."
    default_retry_after = 5


class UpstreamBusy(UpstreamError):
    """It has too much to do, and went on saying so for as long as the recording was worth."""

    code = "upstream_busy"
    default_detail = "The upstream is busy."
    default_hint = "Try again after the time in Retry-After, or name a second upstream."
    default_retry_after = 10


class UpstreamTimeout(UpstreamError):
    """It took longer than a recording of this length may take."""

    code = "upstream_timeout"
    default_detail = "The upstream took too long."
    default_hint = "If it is slow and not stuck, raise VIBEVOICE_UPSTREAM_TIMEOUT."
    default_retry_after = 10


class UpstreamFailed(UpstreamError):
    """It broke in the middle, again and again, or said that something is wrong with itself."""

    code = "upstream_failed"
    default_detail = "The upstream failed in the middle of this recording."
    default_hint = "Look into that server's log; it is not this service that failed."
    default_retry_after = 5


class UpstreamRefused(UpstreamError):
    """It is there, and will not do this."""

    code = "upstream_refused"
    kind = Kind.FAILED
    default_detail = "The upstream refused the request."
    default_hint = "Check VIBEVOICE_UPSTREAM_DIALECT, VIBEVOICE_UPSTREAM_MODEL and the key."


class UpstreamGarbled(UpstreamError):
    """Its answer cannot be read."""

    code = "upstream_garbled"
    kind = Kind.FAILED
    default_detail = "The upstream's answer cannot be read."
    default_hint = "Check that VIBEVOICE_UPSTREAM_DIALECT is the kind of server that answers there."
