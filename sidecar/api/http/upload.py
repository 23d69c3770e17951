"""Uploads and fields of a request: multipart parser with limits and stall timeout, JSON bodies.

Starlette's form parser has no limit for a file, and its errors cannot be distinguished. So the data
comes from python-multipart's push parser and goes straight into the spool.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from sidecar import errors
from sidecar.api.http import request_headers
from sidecar.audio.audio_source import AudioSource
from sidecar.audio.upload_spool import UploadSpool
from sidecar.auth.identity import Scope
from sidecar.interfaces.language_tags import printable_text
from sidecar.interfaces.request_options import field_missing
from sidecar.limit_overrides import limit
from sidecar.service.facade import Service
from sidecar.storage.encryption import EncryptedFile

MAX_JSON_BYTES = 64 << 10
MAX_PART_HEADER_BYTES = 4 << 10
MAX_FIELD_BYTES = 16 << 10
"""Enough for the longest prompt in any script, in UTF-8."""
MAX_FILE_NAME_CHARACTERS = 255
"""As many as the names of most file systems have."""
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
MAX_PARTS = 64
MAX_PREAMBLE_BYTES = 4 << 10
"""Maximum of the text before the first boundary, which is ignored (RFC 2046, 5.1.1)."""
MAX_BOUNDARY_BYTES = 200
"""RFC 2046 allows 70; the parser takes 256."""
MIN_UPLOAD_BYTES_PER_S = 8 << 10
"""Minimum average rate of a client: the slowest mobile networks reach it."""
UPLOAD_STALL_S = limit("upload_stall", 20.0)
"""Maximum pause of a client that is sending: mobile networks are gone that long between cells."""
STALL_FACTOR = 3
"""Number of `UPLOAD_STALL_S` by which a client may be behind `MIN_UPLOAD_BYTES_PER_S`."""
CHARSETS = frozenset({"iso-8859-1", "windows-1252", "utf-16", "utf-16le"})
"""Charsets of text fields besides UTF-8: some libraries for Java and Windows use them."""
_PLAIN_ENCODINGS = (b"binary", b"8bit", b"7bit")
_NONE: Mapping[str, int] = {}
Fields = Mapping[str, object]
FORM_OVERHEAD_BYTES = 1 << 20
"""Allowance for boundaries, headers and text fields beyond the size of the file."""


@dataclass
class UploadForm:
    """Uploaded form: the recording and the text fields.

    ``part``: the name of the recording's part. ``fields``: the last value of every field;
    ``lists``: all of them, in order.
    """

    source: AudioSource
    part: str
    fields: dict[str, str]
    lists: dict[str, list[str]]


async def read_fields(request: Request, service: Service) -> tuple[Fields, AudioSource | None]:
    """Return the fields of a request, from JSON or a form, and the recording if the form has it.
    Fields of the query count too, unless the body has them.

    Raises:
        errors.BadRequest: the body does not match its Content-Type.
    """
    match request_headers.media_type(request):
        case "multipart/form-data":
            upload = await read_form(request, service)
            return upload.fields, upload.source
        case "application/json":
            return {**request.query_params, **await read_json(request)}, None
    raise errors.ContentTypeUnsupported()


async def open_local(request: Request, fields: Fields, service: Service) -> AudioSource:
    """Return the file that the field 'audio_path' names, if the client may name files.

    Raises:
        errors.BadRequest: it is missing, not allowed, or no recording.
    """
    identity = request_headers.identity_of(request)
    identity.demand(Scope.AUDIO_PATH)
    if "audio_path" not in fields:
        raise field_missing("audio_path", fields)
    path = fields["audio_path"]
    if not isinstance(path, str):
        raise errors.AudioPathInvalid("'audio_path' is not a string.")
    return await service.submissions.open_path(identity, path)


@contextmanager
def close_on_error(opened: AudioSource | EncryptedFile | None) -> Iterator[None]:
    """Close ``opened``, if there is one, when the block fails; else its next holder closes it."""
    try:
        yield
    except BaseException:
        if opened is not None:
            opened.close()
        raise


async def read_json(request: Request, *, declared: bool = False) -> dict[str, Any]:
    """Return the object in a JSON body of at most `MAX_JSON_BYTES` bytes. ``declared``: it has to
    have the Content-Type of JSON, which a foreign page cannot send.

    Raises:
        errors.JsonTooLarge, errors.JsonInvalid, errors.UploadStalled,
        errors.ContentTypeUnsupported
    """
    if declared and request_headers.media_type(request) != "application/json":
        raise errors.ContentTypeUnsupported(hint="Send application/json.")
    body = bytearray()
    if _declared_length(request) > MAX_JSON_BYTES:
        raise errors.JsonTooLarge()

    async def take(chunk: bytes) -> None:
        body.extend(chunk)
        if len(body) > MAX_JSON_BYTES:
            raise errors.JsonTooLarge()

    await read_body(request, take)
    try:
        values = request_headers.parse_json_message(bytes(body))
    except ValueError:
        raise errors.JsonInvalid() from None
    if not isinstance(values, dict):
        raise errors.JsonInvalid("The JSON body is not an object.")
    return values


async def read_form(
    request: Request,
    service: Service,
    *,
    file: str = "audio",
    long: Mapping[str, int] = _NONE,
    raw: bool = False,
) -> UploadForm:
    """Return the recording and the fields of a multipart body or, if the body is the recording
    itself (``raw``), the recording; in both cases also with the fields of the query.

    ``file``: the part that is the recording even without a file name. ``long``: total bytes that
    all fields of a name may have, if that is more than `MAX_FIELD_BYTES` each.

    Raises:
        errors.BadRequest: the form is malformed, too large, without a file, or with two.
        errors.DiskFull: the disk has no space for it.
        errors.UploadsFull: too much is being uploaded already.
    """
    settings = service.settings
    limit = settings.max_upload_mb << 20
    most = limit + FORM_OVERHEAD_BYTES + sum(long.values())
    if (declared := _declared_length(request)) > most:
        raise _too_large(settings.max_upload_mb)
    query = request.query_params.multi_items()
    if raw:
        form = _UploadBody(service, file, query)
    else:
        form = _MultipartForm(service, file, query, _boundary(request), long)
    identity = request_headers.identity_of(request)
    body = service.submissions.reservations.reserve_upload(identity, declared)
    received = 0

    async def take(chunk: bytes) -> None:
        nonlocal received
        received += len(chunk)
        if received > most or form.spool.size > limit:
            raise _too_large(settings.max_upload_mb)
        body.grow(len(chunk))
        await form.feed(chunk)

    try:
        await read_body(request, take)
        if form.spool.size > limit:
            raise _too_large(settings.max_upload_mb)
        upload = await form.finish()
    except BaseException:
        form.spool.close()
        body.close()
        raise
    if identity.limits.shares:
        upload.source.on_settled(body.close)
    else:
        body.close()
    return upload


def _too_large(limit_mb: int) -> errors.UploadTooLarge:
    hint = f"The limit is {limit_mb} MB. {errors.UploadTooLarge.default_hint}"
    return errors.UploadTooLarge(hint=hint)


async def read_body(request: Request, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Pass the body to ``take`` as it arrives. Abort if the client pauses too long, or is slower on
    average than `MIN_UPLOAD_BYTES_PER_S`. The time that ``take`` needs does not count."""
    now = asyncio.get_running_loop().time
    whole = now() + STALL_FACTOR * UPLOAD_STALL_S
    more = True
    try:
        async with asyncio.timeout(UPLOAD_STALL_S) as patience:
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise errors.UploadStalled("The client disconnected during the upload.")
                chunk, more = message.get("body", b""), message.get("more_body", False)
                patience.reschedule(None)
                begun = now()
                await take(chunk)
                whole += now() - begun + len(chunk) / MIN_UPLOAD_BYTES_PER_S
                if more:
                    patience.reschedule(min(now() + UPLOAD_STALL_S, whole))
    except TimeoutError:
        if patience.when() == whole:  # the clock may say less: Windows' timers are 15 ms early
            raise errors.UploadStalled("The upload is too slow.") from None
        raise errors.UploadStalled() from None


def file_name(sent: str) -> str:
    """Return the name of a client's file for display: without folders, which some browsers and
    programs send, and without characters that are not printable, but for the joiners of scripts
    that need them; of a name that is too long the end, which has the extension."""
    name = re.split(r"[/\\]", sent)[-1].strip()
    shown = [one for one in name if one.isprintable() or one in _JOINERS]
    return "".join(shown[-MAX_FILE_NAME_CHARACTERS:])


def is_raw_recording(request: Request) -> bool:
    """Return whether the body of a request is a recording and nothing else, by its Content-Type."""
    kind = request.headers.get("content-type", "").strip().lower()
    return kind.startswith(("audio/", "video/", "application/octet-stream"))


def _declared_length(request: Request) -> int:
    """Return the bytes that the body claims to have; 0 if it claims none. Refuse a compressed one:
    its size would not be what it claims."""
    for name, plain in ("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked"):
        if request.headers.get(name, "").strip().lower() not in ("", plain):
            raise errors.ContentTypeUnsupported(
                f"The request has a {name}, and bodies are not decoded.",
                hint=f"Send the body as it is, without {name}.",
            )
    value = request.headers.get("content-length", "")
    return int(value) if value.isdigit() else 0


def _boundary(request: Request) -> bytes:
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise errors.MultipartInvalid(
            f"The Content-Type names no boundary of 1 to {MAX_BOUNDARY_BYTES} bytes."
        )
    return boundary


class _UploadBody:
    """Body of an upload: the recording itself, or a form with it; ``spool`` has it so far."""

    def __init__(self, service: Service, part: str, query: Iterable[tuple[str, str]]) -> None:
        self.spool = UploadSpool(service.settings.spool_dir)
        self._threads = service.spool_threads
        self._file, self._file_name = part, ""
        """Name of the recording's part, and that of the client's file."""
        self._lists: dict[str, list[str]] = {}
        for name, value in query:
            self._lists.setdefault(name, []).append(value)

    async def feed(self, chunk: bytes) -> None:
        """Add the next bytes of the body."""
        self._parse(chunk)
        if self.spool.pending >= UploadSpool.MEMORY_BYTES:
            await self._threads.run(self.spool.spill)

    async def finish(self) -> UploadForm:
        """Return the recording and the fields."""
        spool = self.spool
        source = spool.finish() if spool.in_memory else await self._threads.run(spool.finish)
        source.name = file_name(self._file_name)
        fields = {name: values[-1] for name, values in self._lists.items()}
        return UploadForm(source, self._file, fields, self._lists)

    def _parse(self, chunk: bytes) -> None:
        self.spool.add(chunk)


@dataclass
class _MultipartPart:
    """Part that is being read."""

    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    is_file: bool = False
    text: bytearray = field(default_factory=bytearray)


class _MultipartForm(_UploadBody):
    """Body that is a form: callbacks of the push parser and their results."""

    def __init__(
        self,
        service: Service,
        file: str,
        query: Iterable[tuple[str, str]],
        boundary: bytes,
        long: Mapping[str, int],
    ) -> None:
        super().__init__(service, file, query)
        self._file_part, self._left = file, dict(long)
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )
        self._preamble: bytes | None = b"\r\n"
        self._delimiter = b"--" + boundary
        self._part = _MultipartPart()
        self._parts = 0
        self._ended = self._has_file = False

    async def finish(self) -> UploadForm:
        """Return the whole form."""
        try:
            self._parser.finalize()
        except FormParserError:
            raise errors.MultipartInvalid() from None
        if not self._ended:
            raise errors.MultipartInvalid("The form ends before its last boundary.")
        if not self._has_file:
            raise errors.FileMissing()
        return await super().finish()

    def _parse(self, chunk: bytes) -> None:
        if self._preamble is not None:
            chunk = self._after_preamble(self._preamble + chunk)
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise errors.MultipartInvalid() from None

    def _after_preamble(self, seen: bytes) -> bytes:
        """Return what follows the text before the first boundary, once that has come."""
        line, _, rest = seen.partition(b"\n" + self._delimiter)
        if rest.startswith(b"\n"):
            raise errors.MultipartInvalid("The lines of the form end with LF instead of CRLF.")
        if line.endswith(b"\r") and len(line) < len(seen):
            self._preamble = None
            return self._delimiter + rest
        if len(seen) > MAX_PREAMBLE_BYTES:
            raise errors.MultipartInvalid(
                "The form does not begin with the boundary that its Content-Type names."
            )
        self._preamble = seen
        return b""

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise errors.MultipartTooManyParts()
        self._part = _MultipartPart()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._grow(self._part.header_name, data[start:end], MAX_PART_HEADER_BYTES)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._grow(self._part.header_value, data[start:end], MAX_PART_HEADER_BYTES)

    def _header_end(self) -> None:
        part = self._part
        part.headers[bytes(part.header_name).lower()] = bytes(part.header_value)
        part.header_name, part.header_value = bytearray(), bytearray()
        if len(part.headers) > MAX_PARTS:
            raise errors.MultipartInvalid("A part of the form has too many headers.")

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        encoding = part.headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise errors.MultipartInvalid(
                "A part of the form has a Content-Transfer-Encoding, which is not decoded.",
                hint="Send its bytes as they are (RFC 7578, 4.7).",
            )
        part.is_file = b"filename" in options or part.name == self._file_part
        if part.is_file:
            if self._has_file:
                raise errors.MultipleFiles()
            self._has_file = True
            self._file = part.name
            self._file_name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.is_file:
            self.spool.add(memoryview(data)[start:end])
        elif (left := self._left.get(self._part.name)) is None:
            self._grow(self._part.text, data[start:end], MAX_FIELD_BYTES)
        else:
            self._left[self._part.name] = left - (end - start)
            self._grow(self._part.text, data[start:end], len(self._part.text) + left)

    def _part_end(self) -> None:
        part = self._part
        if part.is_file:
            return
        _, options = parse_options_header(part.headers.get(b"content-type", b""))
        charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
        try:
            text = part.text.decode(charset if charset in CHARSETS else "utf-8")
        except UnicodeDecodeError:
            raise errors.FieldInvalid(
                f"The field '{printable_text(part.name)}' is not text in UTF-8.",
                hint="Send its text in UTF-8.",
            ) from None
        self._lists.setdefault(part.name, []).append(text)

    def _end(self) -> None:
        self._ended = True

    def _grow(self, buffer: bytearray, data: bytes, limit: int) -> None:
        buffer += data
        if len(buffer) > limit:
            name = printable_text(self._part.name)
            raise errors.FieldTooLong(f"The field '{name}' of the form is too long." * bool(name))
