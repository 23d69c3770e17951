"""Encryption of what is kept: AES-256-GCM under a key that does not lie beside it.

What is sealed says what it is (``about``), so that one piece cannot be put in another's place. A
recording is sealed in pieces, each numbered, the last one marked: none can be left out, moved or
cut off (Hoang, Reyhanitabar, Rogaway, Vizár 2015, "STREAM").

A recording has a key of its own. Under one key for all, the 56 random bits that begin their nonces
would be used twice with a probability of 2^-32 once there are 5,800 (NIST SP 800-38D, 8.3).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Iterator
from itertools import chain

from sidecar.errors import SettingsInvalid

SALT = 16
"""Bytes."""
MARK = b"VIBEVOICE RECORDING 2\n"
"""What a recording begins with, and the version of its form. Those of the first have none, and were
sealed with the key of their journal."""
PIECE = 1 << 20
"""Bytes of a recording that are sealed at once."""
PREFIX = 7
"""Random bytes before the first piece, with which each nonce begins."""
TAG = 16
"""Bytes by which a sealed piece is longer."""
_NONCE = 12


class SealBroken(Exception):
    """It was sealed with another key, or altered."""


class Seal:
    """Seals and opens with one key."""

    def __init__(self, secret: str, salt: bytes, purpose: str = "kept jobs") -> None:
        """``secret``: random, of 128 bits at least; ``salt``: of the file that is sealed;
        ``purpose``: what is in it, so that one secret gives a key for each.

        Raises:
            errors.SettingsInvalid: the package for it is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        except ImportError:
            raise SettingsInvalid(
                "What is kept is encrypted, and the package 'cryptography' is missing.",
                hint="pip install 'vibevoice-asr[auth]', or start without --keep-jobs, --people, "
                "--capture.",
            ) from None
        about = f"vibevoice-asr {purpose}".encode()
        derived = HKDF(SHA256(), 32, salt, about).derive(secret.encode())
        self._cipher = AESGCM(derived)
        self._secret, self._salt = secret, salt

    def of_recording(self, name: str) -> Seal:
        """What this recording alone is sealed with; its name is never given to another."""
        return Seal(self._secret, self._salt, f"recording {name}")

    def of_job(self, job_id: str) -> Seal:
        """Return the key of a job's rows in a database: one for all would reach the number of
        messages that random nonces allow (NIST SP 800-38D, 8.3: 2^32)."""
        return Seal(self._secret, self._salt, f"job {job_id}")

    def code(self, text: str) -> str:
        """Return a code of a text, which is the same each time and tells nobody else what it is
        (HMAC-SHA256, RFC 2104)."""
        return hmac.new(self._secret.encode(), self._salt + text.encode(), "sha256").hexdigest()

    def seal(self, data: bytes, about: str) -> bytes:
        """``data``, for nobody else to read."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data, about.encode())

    def opened(self, sealed: bytes, about: str) -> bytes:
        """What was sealed.

        Raises:
            SealBroken: it is not what it was, or not about that.
        """
        return self._decrypted(sealed[:_NONCE], sealed[_NONCE:], about)

    def seal_recording(self, data: Iterable[bytes], name: str) -> Iterator[bytes]:
        """A recording, sealed under a key of its own."""
        own, prefix = self.of_recording(name), os.urandom(PREFIX)
        yield MARK + prefix
        for number, piece, last in _numbered(even(data, PIECE)):
            yield own.sealed_piece(piece, prefix, number, name, last=last)

    def opened_recording(self, sealed: Iterable[bytes], name: str) -> Iterator[bytes]:
        """A recording that was sealed, also one of the first version; what comes before it breaks
        was right.

        Raises:
            SealBroken: it is not what it was, not of that name, or not whole.
        """
        rest = iter(_split(sealed, len(MARK)))
        head = next(rest, b"")
        if head == MARK:
            yield from self.of_recording(name).opened_pieces(rest, name)
        else:
            yield from self.opened_pieces(chain([head], rest), name)

    def sealed_piece(
        self, data: bytes, prefix: bytes, number: int, about: str, *, last: bool
    ) -> bytes:
        """One piece of a stream, which is never sealed with other ``data`` again."""
        return self._cipher.encrypt(_nonce(prefix, number, last), data, about.encode())

    def opened_pieces(
        self, sealed: Iterable[bytes], about: str, piece: int = PIECE
    ) -> Iterator[bytes]:
        """The stream that was sealed, so many bytes at once; what comes before it breaks was right.

        Raises:
            SealBroken: it is not what it was, not about that, or not whole.
        """
        rest = iter(_split(sealed, PREFIX))
        prefix = next(rest, b"")
        if len(prefix) != PREFIX:
            raise SealBroken
        for number, data, last in _numbered(even(rest, piece + TAG)):
            yield self._decrypted(_nonce(prefix, number, last), data, about)

    def opened_piece(
        self, data: bytes, prefix: bytes, number: int, about: str, *, last: bool
    ) -> bytes:
        """One piece of a stream that was sealed, and is whole if its ``last`` one opens as such.

        Raises:
            SealBroken: it is not what it was, not about that, or not in that place.
        """
        return self._decrypted(_nonce(prefix, number, last), data, about)

    def _decrypted(self, nonce: bytes, data: bytes, about: str) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(nonce, data, about.encode())
        except (InvalidTag, ValueError):
            raise SealBroken from None


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


def _numbered(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes, bool]]:
    """Pieces with their numbers, and whether they are the last; at least one."""
    number, held = 0, b""
    for following in pieces:
        if held:
            yield number, held, False
            number += 1
        held = following
    yield number, held, True


def even(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of ``size``; the last may be shorter."""
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


def _split(data: Iterable[bytes], first: int) -> Iterator[bytes]:
    """The first bytes, or as many as there are; then the rest as it comes."""
    waiting, parts = b"", iter(data)
    for part in parts:
        waiting += part
        if len(waiting) >= first:
            break
    yield waiting[:first]
    yield waiting[first:]
    yield from parts
