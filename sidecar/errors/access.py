"""Access: who may not come in, and who comes too often."""

from __future__ import annotations

from sidecar.errors.error_base import Kind, Limited, SidecarError, Unauthorized


class HostNotAllowed(SidecarError):
    """The request was sent to a name that is none of ours: a web page may have rebound its own."""

    code = "host_not_allowed"
    kind = Kind.FORBIDDEN
    default_detail = "The Host header names no address of this service."
    default_hint = "Use 127.0.0.1 or localhost; other names go into the setting 'allowed_hosts'."


class PeerNotAllowed(SidecarError):
    """Somebody on another machine, or behind a proxy, and there is no token to know them by."""

    code = "peer_not_allowed"
    kind = Kind.FORBIDDEN
    default_detail = "Without a token this service answers its own machine only, and no proxy."
    default_hint = "Start it with VIBEVOICE_TOKEN (or --token-file) and send that as Bearer."


class OriginNotAllowed(SidecarError):
    """A web page that may not ask."""

    code = "origin_not_allowed"
    kind = Kind.FORBIDDEN
    default_detail = "Web pages of this origin may not use this service."
    default_hint = "Add the origin to the setting 'allowed_origins' if the page is yours."


class TokenMissing(Unauthorized):
    """The service was started with a token, the request has none."""

    code = "token_missing"
    default_detail = "This service wants a token."
    default_hint = (
        "Send 'Authorization: Bearer' and the token that it was started with, or a signed one."
    )


class TokenInvalid(Unauthorized):
    """Neither the token that the service was started with, nor a signed one that counts."""

    code = "token_invalid"
    default_detail = "The token does not count here."
    default_hint = (
        "A service that was started anew may have another: read its ready line again. A signed one "
        "may have expired or been revoked."
    )


class LinkInvalid(Unauthorized):
    """The word of a link to the page was used, is too old, or never was one."""

    code = "link_invalid"
    default_detail = (
        "This link does not count any more: it opens the page once, within two minutes."
    )
    default_hint = "Make another one: vibevoice-asr open"


class TicketInvalid(Unauthorized):
    """The ticket of a live connection was used, is too old, or never was one."""

    code = "ticket_invalid"
    default_detail = "This ticket does not count any more: it opens one connection, within minutes."
    default_hint = "Get another one: POST /v1/live/ticket"


class ScopeMissing(SidecarError):
    """A token that is right, but not for this."""

    code = "scope_missing"
    kind = Kind.FORBIDDEN
    default_detail = "The token that was sent does not allow this."
    default_hint = "Ask whoever gives out tokens for one that does."


class RateLimited(Limited):
    """Too many requests."""

    code = "rate_limited"
    default_detail = "Too many requests in a short time."


class JobsLimited(Limited):
    """As many jobs at once as one owner may have."""

    code = "jobs_limited"
    default_detail = "You have as many jobs waiting and running as one may have at once."
    default_hint = "Wait until one of them has ended, or cancel one."


class AudioLimited(Limited):
    """More audio waits than one owner may have waiting."""

    code = "audio_limited"
    default_detail = "You have as much audio waiting as one may have."
    default_hint = "Wait until some of it is transcribed."


class UploadsLimited(Limited):
    """More was uploaded than one owner may in an hour."""

    code = "uploads_limited"
    default_detail = "You have uploaded as much as one may in an hour."
    default_hint = "Try again after the time in Retry-After; opus or flac is less to upload."


class ConnectionsLimited(Limited):
    """As many requests and connections are open as one owner may have."""

    code = "connections_limited"
    default_detail = "As many of your requests and connections are open as one may have."
    default_hint = "Close event streams and live connections that are not needed any more."


class LiveLimited(Limited):
    """One client has as many live sessions as it may."""

    code = "live_limited"
    default_detail = "You have as many live sessions as you may."
    default_hint = "End one of them first."
