"""Wyoming: limits of events."""

from sidecar.errors import ErrorKind, SidecarError


class MessageTooBig(SidecarError, code="message_too_big", kind=ErrorKind.TOO_LARGE):
    """Message of a live connection beyond the limit."""

    default_detail = "The message is too large."
    default_hint = "Send chunks of about 0.1 s of audio."
