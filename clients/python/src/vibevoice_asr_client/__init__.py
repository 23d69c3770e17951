"""The client of vibevoice-asr: recordings in, transcripts with speakers out."""

from vibevoice_asr_client import codes
from vibevoice_asr_client.async_client import AsyncClient
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

__version__ = "0.1.0"
__all__ = [
    "FORMATS",
    "NEVER",
    "AnswerNotUnderstood",
    "AsyncClient",
    "Busy",
    "Cancelled",
    "CertificateRefused",
    "Client",
    "ClientError",
    "Conflict",
    "ConnectionLost",
    "Event",
    "Failed",
    "Forbidden",
    "InsecureWarning",
    "Job",
    "JobPage",
    "NotFound",
    "OutOfSpace",
    "Progress",
    "Refused",
    "Retry",
    "Segment",
    "ServiceError",
    "ServiceUnreachable",
    "TooLarge",
    "Transcript",
    "Trust",
    "TrustInvalid",
    "Unauthorized",
    "Warning",
    "Word",
    "codes",
]
