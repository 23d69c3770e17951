"""Recordings in an S3 bucket.

An object appears once the server has all of it: a small one is sent at once, a larger one as a
multipart upload. Other objects of the bucket are not touched: those of this service are below the
prefix and end with `OBJECT_SUFFIX`.
"""

from __future__ import annotations

import contextlib
import email.utils
import itertools
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sidecar import errors
from sidecar.audio.upload_spool import storage_error
from sidecar.concurrency import backoff_s
from sidecar.config.secret_settings import host_of
from sidecar.installation import install_command
from sidecar.storage.encryption import rechunk
from sidecar.storage.recording_storage import PARTIAL_SUFFIX

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 3.0
"""Limit for a server to accept a connection."""
READ_TIMEOUT_S = 15.0
"""Limit for a silence of the server during a call."""
MAX_ATTEMPTS = 3
"""Attempts of a call, with pauses of up to a second and then two."""
MAX_CONNECTIONS = 16
"""Connections in the pool, for as many threads."""
DEFAULT_REGION = "us-east-1"
"""Region for servers without regions."""
OBJECT_SUFFIX = ".sealed"
"""Suffix of the objects of this service."""
PART_BYTES = 8 << 20
"""Bytes of a part; servers accept at least 5 MiB, and at most 10,000 parts."""
READ_CHUNK_BYTES = 4 << 20
"""Bytes that are fetched at once."""
_OBJECT_NAME = re.compile(r"([\w-]+)\.sealed")
_QUOTA_CODES = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}
_UNSUPPORTED_CODES = {"NotImplemented", "MethodNotAllowed"}
_SENT_BY_SERVER = {
    **dict.fromkeys(("head_object", "get_object", "put_object", "upload_part"), "ETag"),
    "create_multipart_upload": "UploadId",
    "complete_multipart_upload": "ETag",
}
"""Calls, and what each answer to them has."""
_DELETIONS = {"delete_object", "abort_multipart_upload"}
"""Calls whose answers are empty."""


class S3Unavailable(errors.StorageUnreachable):
    """The storage does not answer now; whether the request was carried out is unknown. ``reason``:
    the class name of an error, whose message contains addresses."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The storage of recordings does not answer: {reason}.")
        self.reason = reason


class S3Refused(errors.StorageUnreachable):
    """The storage answers, and rejects the request (invalid keys, a missing bucket): the data may
    be there once that is corrected. ``reason``: its code for that."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The storage of recordings rejects requests: {reason}.")
        self.reason = reason


class S3Client:
    """Client of one S3 server, for any thread."""

    def __init__(self, endpoint: str | None, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """``endpoint``: the server's address; None: AWS. With an address, buckets are in the path
        (``address/bucket/key``); plain HTTP is used only if the address says so.
        ``read_timeout_s``: limit for a silence of the server during a call.

        Raises:
            errors.SettingsInvalid: botocore is not installed, or its configuration is invalid.
        """
        try:
            import botocore.session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise errors.SettingsInvalid(
                "The setting 'uploads' names a bucket, which needs the package 'botocore', "
                "which is not installed.",
                hint=f"{install_command('s3')}, or start without --uploads.",
            ) from None
        try:
            session = botocore.session.get_session()
            self._client = session.create_client(
                "s3",
                endpoint_url=endpoint,
                region_name=session.get_config_variable("region") or DEFAULT_REGION,
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=read_timeout_s,
                    retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
                    max_pool_connections=MAX_CONNECTIONS,
                    ignore_configured_endpoint_urls=True,  # the address comes from `endpoint` only
                    # Each part is signed, so that the server takes none that was changed; servers
                    # other than AWS mostly do not know its newer checksums.
                    s3={
                        "addressing_style": "path" if endpoint else "auto",
                        "payload_signing_enabled": True,
                    },
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise errors.SettingsInvalid(f"The S3 storage cannot be used: {error}") from None

    @property
    def host(self) -> str:
        """Return the server's host and port."""
        return host_of(self._client.meta.endpoint_url)

    def ask(self, call: str, **what: Any) -> Mapping[str, Any]:
        """Make a call, named as in botocore. A body in the answer (`get_object`) is read here,
        whole.

        Raises:
            FileNotFoundError: there is no such object.
            S3Unavailable, S3Refused, errors.DiskFull: it was not done, as far as is known.
        """
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        for attempt in range(MAX_ATTEMPTS):
            try:
                answer = dict(getattr(self._client, call)(**what))
            except ClientError as error:
                raise _response_error(call, error.response) from None
            except (BotoCoreError, OSError) as error:
                raise S3Unavailable(type(error).__name__) from None
            _check_origin(call, answer)
            if "Body" not in answer:
                break
            try:
                with answer["Body"] as body:
                    answer["Body"] = body.read()
                break
            # botocore's retries do not cover the body
            except (BotoCoreError, HTTPClientError, OSError) as error:
                if attempt == MAX_ATTEMPTS - 1:
                    raise S3Unavailable(type(error).__name__) from None
            time.sleep(backoff_s(attempt, 0.5, 2.0))
        return answer


def _check_origin(call: str, answer: Mapping[str, Any]) -> None:
    """Raise `S3Unavailable` if an answer is a page of a proxy, whatever its status. Every S3 server
    sends the ETag of an object; it is compared with nothing, as few of them are of a known kind.
    Some (OpenStack Swift) call an empty body HTML, and some proxies send pages with an ETag."""
    metadata = answer["ResponseMetadata"]
    headers = metadata.get("HTTPHeaders", {})
    is_html = str(headers.get("content-type", "")).startswith("text/html")
    length = headers.get("content-length")
    if call in _DELETIONS:
        known = metadata["HTTPStatusCode"] == 204 or length == "0"
    elif field := _SENT_BY_SERVER.get(call):
        known = field in answer and not (is_html and length not in (None, "0"))
    else:
        known = not is_html
    if not known:
        raise S3Unavailable("an answer that is not of an S3 server")


def _response_error(call: str, response: Mapping[str, Any]) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    gone = code == "NoSuchUpload" and call in _DELETIONS
    if gone or code == "NoSuchKey" or (call == "head_object" and status == 404):  # HEAD has no body
        return FileNotFoundError("there is no such object")
    # a proxy answers 404, without a code of S3, while the server behind it restarts
    if (status >= 500 and status != 507) or (status == 404 and code in ("", "404")):
        return S3Unavailable(code or str(status))
    if code in _QUOTA_CODES or status == 507:
        return errors.DiskFull("The S3 storage is full.")
    return S3Refused(code)


class S3Storage:
    """`RecordingStorage` in an S3 bucket."""

    kind = "bucket"

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        """``prefix``: prefix of all keys; empty, or ends with a slash."""
        self._client, self._bucket, self._prefix = client, bucket, prefix

    def __str__(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/") + f" at {self._client.host}"

    def put(self, name: str, pieces: Iterable[bytes], *, synced: bool = True) -> None:
        """Send a stream; the server answers once it is stored."""
        parts = rechunk(pieces, PART_BYTES)
        try:
            with contextlib.suppress(FileNotFoundError):
                self._ask("head_object", Key=self._key(name))
                raise errors.SpoolUnwritable("A recording of that name already exists.")
            first = next(parts, b"")
            if len(first) < PART_BYTES:
                self._ask("put_object", Key=self._key(name), Body=first)
            else:
                self._put_parts(name, itertools.chain([first], parts))
        except OSError as error:  # the source of the stream cannot be read
            raise storage_error(error) from None

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the whole recording."""
        stored, at = self.open(name), 0
        while piece := stored.at(at, READ_CHUNK_BYTES):
            at += len(piece)
            yield piece

    def open(self, name: str) -> S3Object:
        """Open a recording for random access."""
        return S3Object(self, name, self._size(name))

    def range(self, name: str, at: int, size: int) -> bytes:
        """Return ``size`` bytes from the offset ``at``; they must exist."""
        span = f"bytes={at}-{at + size - 1}"
        return bytes(self._ask("get_object", Key=self._key(name), Range=span)["Body"])

    def _size(self, name: str) -> int:
        """Return the stored bytes of a recording."""
        key = self._key(name)
        try:
            return int(self._ask("head_object", Key=key)["ContentLength"])
        except FileNotFoundError:
            # HEAD has no body that says whether the object, the bucket or the server is missing
            page = self._ask("list_objects_v2", Prefix=key, MaxKeys=1)
            for one in page.get("Contents", ()):
                if one["Key"] == key:
                    return int(one["Size"])
            raise

    def delete(self, name: str) -> None:
        """Delete a recording; a missing one does nothing."""
        with contextlib.suppress(FileNotFoundError):
            if not name.endswith(PARTIAL_SUFFIX):
                self._ask("delete_object", Key=self._key(name))
                return
            key = self._key(name.removesuffix(PARTIAL_SUFFIX))
            for _, upload in self._unfinished(key):
                if upload["Key"] == key:
                    self._abort({"Key": key, "UploadId": upload["UploadId"]})

    def ages(self) -> Mapping[str, float]:
        """Return all recordings with their ages in seconds, including multipart
        uploads that never ended."""
        ages: dict[str, float] = {}
        for page in self._pages("list_objects_v2", ("ContinuationToken",), self._prefix):
            for one in page.get("Contents", ()):
                if (name := self._name(one["Key"])) is not None:
                    ages[name] = _server_time(page) - one["LastModified"].timestamp()
        for page, upload in self._unfinished(self._prefix):
            if (name := self._name(upload["Key"])) is not None:
                ages[f"{name}{PARTIAL_SUFFIX}"] = _server_time(page) - self._touched(upload)
        return ages

    def check(self) -> None:
        """Check the access: write an object, list and delete it.

        Raises:
            FileNotFoundError, S3Unavailable, S3Refused, errors.DiskFull: that cannot be done.
        """
        key = self._key("look")  # always the same: if the deletion fails, the next check deletes it
        self._ask("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        self._ask("put_object", Key=key, Body=b"")
        self._ask("delete_object", Key=key)

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}{OBJECT_SUFFIX}"

    def _name(self, key: str) -> str | None:
        """Return the name of a recording; None for an object of others."""
        ours = _OBJECT_NAME.fullmatch(key.removeprefix(self._prefix))
        return ours[1] if ours else None

    def _put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        of = {"Key": self._key(name)}
        of["UploadId"] = self._ask("create_multipart_upload", **of)["UploadId"]
        try:
            sent = []
            for number, part in enumerate(parts, 1):
                answer = self._ask("upload_part", **of, PartNumber=number, Body=part)
                sent.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._ask("complete_multipart_upload", **of, MultipartUpload={"Parts": sent})
        except BaseException as error:
            if not isinstance(error, S3Unavailable):
                self._abort(of)
            raise

    def _abort(self, of: Mapping[str, str]) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask("abort_multipart_upload", **of)

    def _unfinished(self, prefix: str) -> Iterator[tuple[Any, Any]]:
        """Yield multipart uploads that never ended, each with its page of the list."""
        try:
            for page in self._pages(
                "list_multipart_uploads", ("KeyMarker", "UploadIdMarker"), prefix
            ):
                for upload in page.get("Uploads", ()):
                    yield page, upload
        except S3Refused as refused:
            if refused.reason not in _UNSUPPORTED_CODES:
                raise
            log.info(
                "the S3 storage cannot list incomplete multipart uploads; set a lifecycle rule "
                "of the bucket that deletes them"
            )

    def _touched(self, upload: Mapping[str, Any]) -> float:
        """Return the time of the last change of an upload."""
        times = [upload["Initiated"]]
        with contextlib.suppress(FileNotFoundError, S3Refused):  # it has ended meanwhile
            of = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            times += [one["LastModified"] for one in self._ask("list_parts", **of).get("Parts", ())]
        return float(max(times).timestamp())

    def _pages(
        self, call: str, markers: tuple[str, ...], prefix: str
    ) -> Iterator[Mapping[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self._ask(call, Prefix=prefix, **after)
            yield page
            if not page.get("IsTruncated"):
                return
            after = {one: page[f"Next{one}"] for one in markers}

    def _ask(self, call: str, **what: Any) -> Mapping[str, Any]:
        return self._client.ask(call, Bucket=self._bucket, **what)


class S3Object:
    """`StoredObject` in a bucket."""

    def __init__(self, storage: S3Storage, name: str, size: int) -> None:
        self._storage, self._name, self.size = storage, name, size

    def at(self, at: int, size: int) -> bytes:
        """Return at most ``size`` bytes from the offset ``at``."""
        size = min(size, self.size - at)
        return self._storage.range(self._name, at, size) if size > 0 else b""

    def close(self) -> None:
        """Do nothing: the object has no open resources."""


def _server_time(page: Mapping[str, Any]) -> float:
    """Return the server's time; 0 if it sends none, so that nothing counts as old."""
    date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
    return email.utils.parsedate_to_datetime(date).timestamp() if date else 0.0
