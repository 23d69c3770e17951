"""Selection of the recording storage from settings."""

import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.config.settings import Settings
from sidecar.errors import DiskFull, SettingsInvalid
from sidecar.plugins.shared_jobs.s3_storage import S3Client, S3Refused, S3Storage, S3Unavailable
from sidecar.plugins.shared_jobs.settings import SharedJobSettings
from sidecar.storage.recording_storage import FolderStorage, RecordingStorage

START_TIMEOUT_S = 30.0
"""Time that a server may take to start beside a service."""
RETRY_PAUSE_S = 1.0
_S3_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([\w./-]*))?", re.ASCII)
_KEYS_HINT = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may list, read, write and delete "
    "there (or AWS_PROFILE, or a role)."
)
_HINTS = {
    "NoSuchBucket": "Make the bucket, or name another with VIBEVOICE_UPLOADS.",
    "AuthorizationHeaderMalformed": "Set AWS_DEFAULT_REGION to the region of the bucket.",
    "PermanentRedirect": "Set AWS_DEFAULT_REGION to the region of the bucket.",
    "RequestTimeTooSkewed": "Set the clock of this machine.",
    "SSLError": "Name the authority of its certificate in AWS_CA_BUNDLE.",
}
_UNREACHABLE_HINT = "Start it, or set AWS_ENDPOINT_URL_S3 to one that can be reached."


def create_recording_storage(settings: Settings, folder: Path) -> RecordingStorage:
    """Return the storage of the setting `uploads`, or of ``folder`` if it is unset.

    Raises:
        errors.SettingsInvalid: the setting is invalid.
    """
    uploads = SharedJobSettings.of(settings).uploads
    if uploads is None:
        return FolderStorage(folder)
    if Path(uploads).is_absolute():
        return FolderStorage(Path(uploads), named=True)
    matched = _S3_URL.fullmatch(uploads)
    if matched is None:
        raise SettingsInvalid(
            "The setting 'uploads' is neither a bucket nor the full path of a folder.",
            hint="Write it like s3://recordings/asr; its server is AWS_ENDPOINT_URL_S3.",
        )
    endpoint = _endpoint()
    client = S3Client(_check_endpoint(endpoint) if endpoint else None)
    folder_in_it = (matched[2] or "").strip("/")
    return S3Storage(client, matched[1], f"{folder_in_it}/" if folder_in_it else "")


def check_storage(
    storage: RecordingStorage,
    patience_s: float = START_TIMEOUT_S,
    retry_pause_s: float = RETRY_PAUSE_S,
) -> None:
    """Check that a bucket answers and allows what the service does; retried for ``patience_s``,
    with pauses of ``retry_pause_s``. A folder is created on first use; a folder that the setting
    names needs its parent, which may come with a mount.

    Raises:
        errors.SettingsInvalid: the storage cannot be used.
    """
    if isinstance(storage, FolderStorage):
        storage.check()
    if not isinstance(storage, S3Storage):
        return
    until = time.monotonic() + patience_s
    while True:
        try:
            storage.check()
            return
        except DiskFull as error:
            raise SettingsInvalid(error.detail, hint="Delete what is not needed there.") from None
        except S3Refused as error:
            hint = _HINTS.get(error.reason, _KEYS_HINT)
            raise SettingsInvalid(
                f"The S3 storage rejects the request: {error.reason}.", hint=hint
            ) from None
        except (S3Unavailable, FileNotFoundError) as error:
            reason = error.reason if isinstance(error, S3Unavailable) else str(error)
            if "Credential" in reason:
                raise SettingsInvalid("The S3 storage requires keys.", hint=_KEYS_HINT) from None
            if reason == "SSLError" or time.monotonic() >= until:
                raise SettingsInvalid(
                    f"The S3 storage does not answer: {reason}.",
                    hint=_HINTS.get(reason, _UNREACHABLE_HINT),
                ) from None
        time.sleep(retry_pause_s)


def _endpoint() -> str:
    """Return the address of the object storage from the usual AWS variables; '' means AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _check_endpoint(endpoint: str) -> str:
    """Return an endpoint address without a path; ``http://`` has to be explicit.

    Raises:
        errors.SettingsInvalid: it is no address, or has a password; the error does not repeat it.
    """
    try:
        parts = urlsplit(endpoint)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise SettingsInvalid(
            "The value of AWS_ENDPOINT_URL_S3 is not the address of a server.",
            hint="Write it like https://s3.example.org or http://10.0.0.5:9000; keys go into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    return f"{parts.scheme}://{parts.netloc}"
