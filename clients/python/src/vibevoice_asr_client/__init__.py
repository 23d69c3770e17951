"""The client of vibevoice-asr: recordings in, transcripts with speakers out."""

from vibevoice_asr_client import codes
from vibevoice_asr_client.async_client import AsyncClient
from vibevoice_asr_client.async_live import AsyncLive
from vibevoice_asr_client.calls import FORMATS
from vibevoice_asr_client.client import Client
from vibevoice_asr_client.errors import (
    AnswerNotUnderstood,
    Busy,
    Cancelled,
    CertificateRefused,
    ClientError,
    Conflict,
    ConnectionLost,
    Failed,
    Forbidden,
    InsecureWarning,
    NotFound,
    OutOfSpace,
    Refused,
    ServiceError,
    ServiceUnreachable,
    TooLarge,
    TrustInvalid,
    Unauthorized,
)
from vibevoice_asr_client.live import Live
from vibevoice_asr_client.live_events import (
    Final,
    LiveEvent,
    Noticed,
    Partial,
    SpeakersRevised,
    SpeechStarted,
    SpeechStopped,
    Summary,
    TurnDropped,
    TurnEnded,
)
from vibevoice_asr_client.models import (
    Event,
    Job,
    JobPage,
    Progress,
    Segment,
    Transcript,
    Warning,
    Word,
)
from vibevoice_asr_client.retry import NEVER, Retry
from vibevoice_asr_client.tls import Trust

__version__ = "1.0.0"
__all__ = [
    "FORMATS",
    "NEVER",
    "AnswerNotUnderstood",
    "AsyncClient",
    "AsyncLive",
    "Busy",
    "Cancelled",
    "CertificateRefused",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionLost",
    "Event",
    "Failed",
    "Final",
    "Forbidden",
    "InsecureWarning",
    "Job",
    "JobPage",
    "Live",
    "LiveEvent",
    "NotFound",
    "Noticed",
    "OutOfSpace",
    "Partial",
    "Progress",
    "Refused",
    "Retry",
    "Segment",
    "ServiceError",
    "ServiceUnreachable",
    "SpeakersRevised",
    "SpeechStarted",
    "SpeechStopped",
    "Summary",
    "TooLarge",
    "Transcript",
    "Trust",
    "TrustInvalid",
    "TurnDropped",
    "TurnEnded",
    "Unauthorized",
    "Warning",
    "Word",
    "codes",
]
