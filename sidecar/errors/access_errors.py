"""Access: errors of hosts, origins, tokens, scopes, rate limits and quotas."""

from sidecar.errors.error_base import ErrorKind, SidecarError, Unauthorized


class HostNotAllowed(SidecarError, code="host_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Host header that is not allowed: a web page may have rebound its own name (DNS rebinding)."""

    default_detail = "The Host header is not an allowed name of this service."
    default_hint = "Use 127.0.0.1 or localhost, or add the name to the setting 'allowed_hosts'."


class PeerNotAllowed(SidecarError, code="peer_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Client on another machine or behind a proxy, while the service has no token."""

    default_detail = (
        "Without a token this service accepts direct connections from its own machine only."
    )
    default_hint = (
        "Start the service with VIBEVOICE_TOKEN (or --token @FILE) and send that token as Bearer."
    )


class OriginNotAllowed(SidecarError, code="origin_not_allowed", kind=ErrorKind.FORBIDDEN):
    """Web page of an origin that is not allowed."""

    default_detail = "Web pages of this origin may not use this service."
    default_hint = (
        "If the page is yours, set 'allowed_origins' to its origin and to those of the default "
        "that you need. Behind a proxy, pass Host with its port (nginx: $http_host)."
    )


class TokenMissing(Unauthorized, code="token_missing"):
    """Request without a token, to a service that requires one."""

    default_detail = "This service requires a token."
    default_hint = (
        "Send 'Authorization: Bearer' with the token of the service, or with a signed one."
    )


class TokenInvalid(Unauthorized, code="token_invalid"):
    """Token that is neither the token of the service nor a valid signed one."""

    default_detail = "The token is not valid for this service."
    default_hint = (
        "Copy it again, whole: it was mistyped or cut, or is of another service. A restarted "
        "service may have another token: read its ready line again."
    )


class LinkInvalid(Unauthorized, code="link_invalid"):
    """Code of a sign-in link that was used, has expired or is unknown."""

    default_detail = (
        "This link is not valid any more: it works once, for two minutes (an invitation: a day)."
    )
    default_hint = "Get a new link: vibevoice-asr open"


class TicketInvalid(Unauthorized, code="ticket_invalid"):
    """Ticket of a live connection that was used, has expired or is unknown."""

    default_detail = "This ticket is not valid any more: it opens one connection, within minutes."
    default_hint = "Get a new ticket: POST /v1/live/ticket"


class ScopeMissing(SidecarError, code="scope_missing", kind=ErrorKind.FORBIDDEN):
    """Valid token without the scope of this operation."""

    default_detail = "The token lacks the scope for this operation."
    default_hint = "Ask the administrator for a token with that scope."


class LimitExceeded(SidecarError, kind=ErrorKind.LIMITED):
    """Limit of one owner or one address, exceeded."""

    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 30


class RateLimited(LimitExceeded, code="rate_limited"):
    """Too many requests."""

    default_detail = "Too many requests in a short time."


class JobsLimited(LimitExceeded, code="jobs_limited"):
    """Limit of jobs of one owner."""

    default_detail = "You have reached the limit of waiting and running jobs for one owner."
    default_hint = "Wait until one of them has ended, or cancel one."


class AudioLimited(LimitExceeded, code="audio_limited"):
    """Limit of waiting audio of one owner."""

    default_detail = "You have reached the limit of waiting audio for one owner."
    default_hint = "Wait until some of it is transcribed."


class UploadsLimited(LimitExceeded, code="uploads_limited"):
    """Limit of uploads of one owner in an hour."""

    default_detail = "You have reached the hourly upload limit for one owner."
    default_hint = "Try again after the time in Retry-After, or upload smaller files (opus, flac)."


class ConnectionsLimited(LimitExceeded, code="connections_limited"):
    """Limit of open requests and connections of one owner."""

    default_detail = "You have reached the limit of open requests and connections for one owner."
    default_hint = "Close event streams and live connections that are not needed any more."


class LiveLimited(LimitExceeded, code="live_limited"):
    """Limit of live sessions of one owner."""

    default_detail = "You have reached the limit of live sessions for one owner."
    default_hint = "End one of them first."
