"""What tokens, certificates and kept jobs do with no more of their libraries than a packager finds:
run by test_executable.py, with the names of those modules on standard input."""

import sys
import tempfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

TOPS = ("cryptography", "jwt", "_cffi_backend")
KEY = "0123456789abcdef0123456789abcdef"


class Packed:
    """Finds nothing of `TOPS` but what was packed."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.split(".")[0] in TOPS and name not in self._names:
            raise ModuleNotFoundError(f"{name} was not packed", name=name)
        return None


def main() -> None:
    sys.meta_path.insert(0, Packed(frozenset(sys.stdin.read().split())))  # type: ignore[arg-type]
    from sidecar.auth import signed_tokens, tls
    from sidecar.auth.token_issuing import TokenIssuer
    from sidecar.storage.encryption import Cipher

    folder = Path(tempfile.mkdtemp())
    issuer = TokenIssuer(folder / "tokens")
    token, _ = issuer.create("anna", lasts_s=1000)
    public = signed_tokens.read_public_keys(issuer.keys.public)
    assert signed_tokens.TokenVerifier(lambda: public, issuer.revoked).verify(token)
    for _ in range(2):  # made, then read again
        pair = tls.ensure_certificate(folder / "tls", frozenset({"localhost", "127.0.0.1"}))
    assert tls.certificate_fingerprint(pair.certificate.read_text("ascii"))
    seal = Cipher(KEY, b"salt")
    assert seal.opened(seal.seal(b"said", "name"), "name") == b"said"
    sealed = b"".join(seal.encrypt_recording([b"heard"], "name"))
    assert b"".join(seal.decrypt_recording([sealed], "name")) == b"heard"


if __name__ == "__main__":
    main()
