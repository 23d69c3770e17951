"""gRPC and /admin: sessions, their options, and administrators."""

from sidecar import errors


class AdminOff(errors.SidecarError, code="admin_off", kind=errors.ErrorKind.FORBIDDEN):
    """Use of the administrators' API if it is off, or without an administrator's token."""

    default_detail = "The administrators' API is off."
    default_hint = "Set VIBEVOICE_ADMIN, and a token (docs/operations.md)."


class GrpcSessionIdMissing(errors.FieldMissing):
    """Error: CreateSession names no session."""

    default_detail = "session_id is required"
    default_hint = "Set session_id to a name of your own."


class GrpcOptionInvalid(errors.FieldInvalid):
    """Error: a value of a message is not possible."""

    default_hint = "The numbers of docs/grpc-wire.md say which values are possible."


class GrpcThresholdInvalid(GrpcOptionInvalid):
    """Error: the threshold of speech detection is not possible."""

    default_detail = "vad_threshold must be non-negative"


class GrpcSessionUnknown(errors.SessionNotFound):
    """Error: no session with this id waits for its stream."""

    default_hint = "Call CreateSession first, and name its session_id in the stream."


class GrpcSessionTokenInvalid(errors.TokenInvalid):
    """Error: the token of the session is wrong."""

    default_detail = "Invalid session token"
    default_hint = "Send the session_token that CreateSession answered in the first chunk."
