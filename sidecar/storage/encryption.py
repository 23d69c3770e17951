"""AES-256-GCM encryption, its key (setting, private file, keyring), random access to recordings.

Each encrypted value is bound to what it is (``about``, the associated data), so that it cannot take
the place of another. A recording is encrypted in numbered chunks, the last one marked: none can be
omitted, moved or cut off (Hoang, Reyhanitabar, Rogaway, Vizár 2015, "STREAM").

A chunk is decrypted when it is read, and its plaintext is written nowhere.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from sidecar import files
from sidecar.config.secret_settings import read_secret, secret_origin
from sidecar.config.setting_types import MIN_JOURNAL_KEY_CHARACTERS
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.installation import install_command, is_frozen

SALT_BYTES = 16
CHUNK_BYTES = 1 << 20
"""Bytes of a recording that are encrypted as one chunk."""
NONCE_PREFIX_BYTES = 7
"""Random bytes before the first chunk; each nonce begins with them."""
TAG_BYTES = 16
"""Bytes that encryption adds to a chunk."""
_NONCE_BYTES = 12
GENERATED_KEY_BYTES = 32
_SERVICE, _NAME = "vibevoice-asr", "kept jobs"


class DecryptionFailed(Exception):
    """Error of a value that was encrypted with another key, or changed."""


class Cipher:
    """Encryption and decryption with one key."""

    def __init__(
        self,
        secret: str,
        salt: bytes,
        purpose: str = "kept jobs",
        *,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """``secret``: random, of at least 128 bits; ``salt``: of the encrypted file or database;
        ``purpose``: what is encrypted, so that one secret gives a separate key for each purpose;
        ``chunk_bytes``: bytes of a recording that are encrypted as one chunk.

        Raises:
            errors.SettingsInvalid: the package 'cryptography' is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError:
            raise SettingsInvalid(
                "Persisted data is encrypted, and the package 'cryptography' is not installed.",
                hint=f"{install_command('auth')}, or start without --keep-jobs, --people.",
            ) from None
        about = f"vibevoice-asr {purpose}".encode()
        derived = HKDF(SHA256(), 32, salt, about).derive(secret.encode())
        self._cipher = AESGCM(derived)
        self._secret, self._salt, self.chunk_bytes = secret, salt, chunk_bytes

    def of_recording(self, name: str) -> Cipher:
        """Return the cipher of one recording; its name is never used for another."""
        return self._for(f"recording {name}")

    def of_job(self, job_id: str) -> Cipher:
        """Return the cipher of a job's database rows. One key for all jobs could reach the number
        of messages that random nonces allow (NIST SP 800-38D, 8.3: 2^32)."""
        return self._for(f"job {job_id}")

    def _for(self, purpose: str) -> Cipher:
        return Cipher(self._secret, self._salt, purpose, chunk_bytes=self.chunk_bytes)

    def code(self, text: str) -> str:
        """Return a code of a text: always the same, and useless without the key
        (HMAC-SHA256, RFC 2104)."""
        return hmac.new(self._secret.encode(), self._salt + text.encode(), "sha256").hexdigest()

    def encrypt(self, data: bytes, about: str) -> bytes:
        """Encrypt ``data``, bound to ``about``."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, about.encode())

    def decrypt(self, encrypted: bytes, about: str) -> bytes:
        """Decrypt a value.

        Raises:
            DecryptionFailed: it was changed, or ``about`` differs.
        """
        return self._decrypted(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], about)

    def encrypt_recording(self, data: Iterable[bytes], name: str) -> Iterator[bytes]:
        """Encrypt a recording under its own key."""
        own, prefix = self.of_recording(name)._cipher, os.urandom(NONCE_PREFIX_BYTES)
        yield prefix
        for number, piece, last in _number_chunks(rechunk(data, self.chunk_bytes)):
            yield own.encrypt(_nonce(prefix, number, last), piece, name.encode())

    def decrypt_recording(self, encrypted: Iterable[bytes], name: str) -> Iterator[bytes]:
        """Decrypt a recording. Data that was yielded before an error is valid.

        Raises:
            DecryptionFailed: it was changed, has another name, or is incomplete.
        """
        own = self.of_recording(name)
        rest = iter(_split_stream(encrypted, NONCE_PREFIX_BYTES))
        prefix = next(rest, b"")
        if len(prefix) != NONCE_PREFIX_BYTES:
            raise DecryptionFailed
        for number, data, last in _number_chunks(rechunk(rest, self.chunk_bytes + TAG_BYTES)):
            yield own._decrypted(_nonce(prefix, number, last), data, name)

    def _decrypted(self, nonce: bytes, data: bytes, about: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(nonce, data, about.encode())
        except (InvalidTag, ValueError):
            raise DecryptionFailed from None


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


def _number_chunks(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Yield chunks with their numbers, and whether they are the last; at least one."""
    number, held = 0, b""
    for following in pieces:
        if held:
            yield number, held, False
            number += 1
        held = following
    yield number, held, True


def rechunk(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in chunks of ``size``; the last may be shorter."""
    waiting = bytearray()
    for part in data:
        waiting += part
        while len(waiting) >= size:
            with memoryview(waiting) as view:
                piece = bytes(view[:size])
            del waiting[:size]
            yield piece
    if waiting:
        yield bytes(waiting)


def _split_stream(data: Iterable[bytes], first: int) -> Iterator[bytes]:
    """Yield the ``first`` bytes, or as many as there are; then the rest as it comes."""
    waiting, parts = b"", iter(data)
    for part in parts:
        waiting += part
        if len(waiting) >= first:
            break
    yield waiting[:first]
    yield waiting[first:]
    yield from parts


class StoredObject(Protocol):
    """Bytes with random access, by several threads."""

    @property
    def size(self) -> int:
        """Return the number of bytes."""

    def at(self, at: int, size: int) -> bytes:
        """Return at most ``size`` bytes from the offset ``at``; fewer at the end.

        Raises:
            OSError: they cannot be read.
        """

    def close(self) -> None:
        """Release the object, without waiting; a second call does nothing."""


class LocalObject:
    """`StoredObject` in an open file."""

    def __init__(self, fd: int) -> None:
        """``fd`` is closed with this object."""
        self._fd = fd
        self._turn, self._over = threading.Lock(), False

    @property
    def size(self) -> int:
        """Return the bytes of the file."""
        return os.fstat(self._fd).st_size

    def at(self, at: int, size: int) -> bytes:
        """Return at most ``size`` bytes from the offset ``at``."""
        try:
            with self._turn:
                if sys.platform != "win32":
                    return os.pread(self._fd, size, at)
                os.lseek(self._fd, at, os.SEEK_SET)
                return os.read(self._fd, size)
        finally:
            if self._over:
                self.close()

    def close(self) -> None:
        """Close the file; a read in progress closes it at its end."""
        self._over = True
        if self._turn.acquire(blocking=False):
            try:
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)
            finally:
                self._turn.release()


class EncryptedFile:
    """Encrypted recording with random access (`Cipher.encrypt_recording`). It is known to be
    complete from the start: only the last chunk decrypts as the last."""

    def __init__(self, cipher: Cipher, stored: StoredObject, name: str) -> None:
        """``stored`` is closed with this object, also if this raises.

        Raises:
            DecryptionFailed: it was changed, has another name, or is incomplete.
            OSError: it cannot be read.
        """
        self._cipher, self._stored, self._name = cipher.of_recording(name), stored, name
        self._step = self._cipher.chunk_bytes + TAG_BYTES
        try:
            self._prefix = stored.at(0, NONCE_PREFIX_BYTES)
            encrypted_size = stored.size - NONCE_PREFIX_BYTES
            self._last = max(0, -(-encrypted_size // self._step) - 1)
            self.size = encrypted_size - (self._last + 1) * TAG_BYTES
            if self.size < 0:
                raise DecryptionFailed
            self._piece(self._last)
        except BaseException:
            self.close()
            raise

    def read(self, at: int, most: int = sys.maxsize) -> bytes:
        """Return at most ``most`` bytes from the offset ``at``, at most to the end of a chunk; none
        at the end of the recording.

        Raises:
            DecryptionFailed: it was changed.
            OSError: it cannot be read.
        """
        if not 0 <= at < self.size:
            return b""
        number, begin = divmod(at, self._cipher.chunk_bytes)
        return self._piece(number)[begin : begin + most]

    def close(self) -> None:
        """Release the file, without waiting; a second call does nothing."""
        self._stored.close()

    def _piece(self, number: int) -> bytes:
        data = self._stored.at(NONCE_PREFIX_BYTES + number * self._step, self._step)
        nonce = _nonce(self._prefix, number, number == self._last)
        return self._cipher._decrypted(nonce, data, self._name)


def _key_hint() -> str:
    """Return how to get a key on this system and in this build."""
    make = "(umask 077; openssl rand -hex 32 > FILE)"
    if sys.platform == "win32":
        make = "write 64 random characters into a FILE that only you can read"
    keyring = "" if is_frozen() else "; or install the package 'keyring'"
    return (
        "If jobs or speakers were stored before, use the key that they were written with. "
        f"Else make one: {make}, and start with --journal-key @FILE; or set "
        f"VIBEVOICE_JOURNAL_KEY{keyring}."
    )


def journal_key(settings: Settings, *, create: bool = True) -> str:
    """Return the key; if none is set, the one in the system's keyring, which is created there once,
    unless ``create`` is false.

    Raises:
        errors.SettingsInvalid: there is none, or it is too short.
    """
    given = settings.journal_key
    if given is None:
        return _read_keyring(create=create)
    key = read_secret(given)
    if len(key) < MIN_JOURNAL_KEY_CHARACTERS:
        raise SettingsInvalid(
            f"{secret_origin(given, 'journal_key')} has no key of at least "
            f"{MIN_JOURNAL_KEY_CHARACTERS} characters.",
            hint=_key_hint(),
        )
    return key


def _read_keyring(*, create: bool) -> str:
    """Return the key in the system's keyring; ``create``: it is created if it is missing."""
    try:
        import keyring
    except ImportError:
        raise SettingsInvalid(
            "Persisted data is encrypted: a key is required.", hint=_key_hint()
        ) from None
    try:
        key = keyring.get_password(_SERVICE, _NAME)
        if key is None and create and (folder := files.user_folder("data")) is not None:
            files.make_folder(folder)
            with files.lock_folder(folder):  # of two first starts, one creates it and both get it
                if keyring.get_password(_SERVICE, _NAME) is None:
                    keyring.set_password(_SERVICE, _NAME, secrets.token_hex(GENERATED_KEY_BYTES))
                key = keyring.get_password(_SERVICE, _NAME)
    except Exception as error:  # backends also raise errors of their own system
        raise SettingsInvalid(
            f"The keyring of this system does not return the key of persisted data: {error}.",
            hint=_key_hint(),
        ) from None
    if not key:
        said = "cannot store a key" if create else "has no key for the data that is stored"
        raise SettingsInvalid(f"The keyring of this system {said}.", hint=_key_hint())
    return str(key)
