"""Everything that is tried with tokens, as headers `Authorization` of requests; none may count."""

import base64
import datetime
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sidecar.auth.signed_tokens import key_thumbprint
from sidecar.auth.token_issuing import TokenIssuer

HOUR = datetime.timedelta(hours=1)
CLAIMS = {"sub": "anna", "jti": "0123456789abcdef0123456789abcdef", "aud": "vibevoice-asr"}


def part(value: Any) -> str:
    """A part of a token, of bytes or of what JSON can say."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Attacker:
    """What somebody sends who has the public keys, a key of their own, and tokens that count no
    more; and, to see that each check stands alone, what the private key would sign."""

    def __init__(self, issuer: TokenIssuer) -> None:
        self.issuer = issuer
        self.kid, self.key = issuer.keys.signer()
        self.own = ec.generate_private_key(ec.SECP256R1())
        self.good, issued = issuer.create("anna")
        self.good_id = issued.token_id

    def signed(self, claims: dict[str, Any], key: Any = None, **header: Any) -> str:
        """A token with these claims over those of `CLAIMS`; None leaves one out."""
        said = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
        return self.signed_as_is(said, key, **header)

    def signed_as_is(self, said: dict[str, Any], key: Any = None, **header: Any) -> str:
        """A token with these claims and no others; None is null."""
        # The library will not sign claims of the wrong kind, so its own layer below does.
        algorithm = header.pop("alg", "ES256")
        headers = {"kid": self.kid, "typ": "JWT"} | header
        headers = {name: value for name, value in headers.items() if value is not None}
        data = json.dumps(said).encode()
        return jwt.PyJWS().encode(data, key or self.key, algorithm, headers)

    def hmac_with(self, secret: bytes) -> str:
        """What a checker would take that lets the token choose HS256 and has a public key."""
        text = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': self.kid})}.{part(CLAIMS)}"
        return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"

    def tokens(self) -> dict[str, str]:
        """By what is wrong with each."""
        now = datetime.datetime.now(datetime.UTC)
        public = self.key.public_key()
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        own_jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.own.public_key()))
        revoked, _ = self.issuer.create("ben")
        self.issuer.revoke("ben")
        head, body, signature = self.good.split(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        twice = b'{"alg":"ES256","alg":"none"}'
        none = {"alg": "none", "typ": "JWT", "kid": self.kid}
        subjects = {
            "accent": "ann\u00e1", "full width": "\uff41nna", "cyrillic": "\u0430nna",
            "right to left": "anna\u202e", "zero width": "an\u200bna", "surrogate": "\ud800",
            "line": "anna\nben", "nul": "anna\0", "space": "anna ", "path": "../anna",
            "empty": "", "long": "a" * 65, "number": 7, "list": ["anna"], "object": {"a": 1},
        }  # fmt: skip
        kids = {
            "path": "../../../../dev/null", "absolute": "/etc/hostname", "url": "https://x.example",
            "sql": "' or '1'='1", "nul": f"{self.kid}\0", "empty": "", "number": 0, "list": [],
            "object": {}, "true": True, "file": "0001", "other case": self.kid.swapcase(),
            "own key's": key_thumbprint(self.own.public_key()), "bidi": f"\u202e{self.kid}",
        }  # fmt: skip
        return {
            "alg none": f"{part(none)}.{part(CLAIMS)}.",
            "alg None": f"{part(none | {'alg': 'None'})}.{body}.{signature}",
            "alg nonE, signature kept": f"{part(none | {'alg': 'nonE'})}.{body}.{signature}",
            "alg empty": f"{part(none | {'alg': ''})}.{body}.{signature}",
            "alg missing": f"{part({'kid': self.kid})}.{body}.{signature}",
            "alg list": f"{part(none | {'alg': ['ES256']})}.{body}.{signature}",
            "HS256 with the public key": self.hmac_with(pem),
            "HS256 with the public key, stripped": self.hmac_with(pem.strip()),
            "HS256 with its point": self.hmac_with(
                public.public_bytes(
                    serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
                )
            ),
            "HS256 with nothing": self.hmac_with(b""),
            "ES256K": self.signed({}, ec.generate_private_key(ec.SECP256K1()), alg="ES256K"),
            "ES384": self.signed({}, ec.generate_private_key(ec.SECP384R1()), alg="ES384"),
            "RS256": self.signed({}, rsa.generate_private_key(65537, 2048), alg="RS256"),
            "EdDSA": self.signed({}, ed25519.Ed25519PrivateKey.generate(), alg="EdDSA"),
            "another's key": self.signed({}, self.own),
            "kid missing": self.signed({}, kid=None),
            **{f"kid {name}": self.with_kid(kid) for name, kid in kids.items()},
            "jwk": self.signed({}, self.own, jwk=own_jwk),
            "jwk, our signature": self.signed({}, jwk=own_jwk),
            "jku": self.signed({}, self.own, jku="https://evil.example/keys.json"),
            "x5u": self.signed({}, self.own, x5u="file:///dev/zero"),
            "x5c": self.signed({}, self.own, x5c=["MIIB"]),
            "crit": self.signed({}, crit=["exp"]),
            "typ": self.signed({}, typ="at+jwt"),
            "zip": self.signed({}, zip="DEF"),
            "expired": self.signed({"exp": int((now - HOUR).timestamp())}),
            "expires as text": self.signed({"exp": "never"}),
            "expires as list": self.signed({"exp": [9e99]}),
            "expired long ago": self.signed({"exp": -(2**70)}),
            "expires at infinity": self.signed({"exp": float("inf")}),
            "expires as digits in a text": self.signed({"exp": str(2**33)}),
            "expires true": self.signed({"exp": True}),
            **{
                f"{name} {wrong}": self.signed_as_is(CLAIMS | {name: wrong})
                for name in ("exp", "nbf", "iat")
                for wrong in (None, float("nan"), -1e308)
            },
            **{f"expires in {year}": self.signed({"exp": year}) for year in (1e308, 10**300)},
            "not yet": self.signed({"nbf": int((now + HOUR).timestamp())}),
            "issued tomorrow": self.signed({"iat": int((now + HOUR).timestamp())}),
            "revoked": revoked,
            "no audience": self.signed({"aud": None}),
            "other audience": self.signed({"aud": "another-service"}),
            "ours among others": self.signed({"aud": ["vibevoice-asr", "another-service"]}),
            "audience in another case": self.signed({"aud": "Vibevoice-ASR"}),
            "no subject": self.signed({"sub": None}),
            **{f"subject {name}": self.signed({"sub": each}) for name, each in subjects.items()},
            "no id": self.signed({"jti": None}),
            "id as number": self.signed({"jti": 7}),
            "id with a line": self.signed({"jti": "a\nb"}),
            "id empty": self.signed({"jti": ""}),
            "scope as list": self.signed({"scope": ["admin"]}),
            "100 KB": self.signed({"more": "x" * 75_000}),
            "100 KB of dots": "." * 100_000,
            "100 KB of one letter": "A" * 100_000,
            "deep header": f"{part(b'[' * 1400)}.{body}.{signature}",
            "deep claims": f"{head}.{part(b'[' * 1000)}.{signature}",
            "claims a list": f"{head}.{part([])}.{signature}",
            "other claims": f"{head}.{part(CLAIMS | {'sub': 'root'})}.{signature}",
            "signature zero": f"{head}.{body}.{part(bytes(64))}",
            "signature ones": f"{head}.{body}.{part(bytes([255] * 64))}",
            "signature one bit off": f"{head}.{body}.{part(bytes([raw[0] ^ 1]) + raw[1:])}",
            "signature short": f"{head}.{body}.{part(raw[:-1])}",
            "signature long": f"{head}.{body}.{signature}{part(b'more')}",
            "signature in DER": f"{head}.{body}.{part(bytes([0x30, 0x44]) + raw)}",
            "signature empty": f"{head}.{body}.",
            "two parts": f"{head}.{body}",
            "four parts": f"{self.good}.{signature}",
            "five parts": f"{self.good}..",
            "empty parts": "..",
            "one part": head,
            "header no base64": f"!!!.{body}.{signature}",
            "header no JSON": f"{part(b'{')}.{body}.{signature}",
            "header not UTF-8": f"{part(bytes([255, 254]))}.{body}.{signature}",
            "header twice alg": ".".join((part(twice), body, signature)),
            "padded": f"{self.good}=",
            "spaced": self.good.replace(".", " . "),
            "letter beyond ASCII": f"{self.good[:-1]}\u00e4",
        }  # fmt: skip

    def headers(self) -> dict[str, list[bytes]]:
        """The same as headers, and what else can be wrong with headers."""
        good = self.good.encode()
        return {
            **{
                name: [b"Bearer " + token.encode("latin-1")]
                for name, token in self.tokens().items()
            },
            "twice": [b"Bearer " + good] * 2,
            "a wrong one besides": [b"Bearer " + good, b"Bearer wrong"],
            "both in one": [b"Bearer " + good + b", Bearer " + good],
            "Basic": [b"Basic " + good],
            "no scheme": [good],
            "nothing": [b"Bearer "],
            "scheme twice": [b"Bearer Bearer " + good],
        }

    def with_kid(self, kid: Any) -> str:
        """Signed right, named wrong; the library refuses to write kinds that are no text."""
        head, body = part({"alg": "ES256", "typ": "JWT", "kid": kid}), part(CLAIMS)
        signature = jwt.algorithms.ECAlgorithm(
            jwt.algorithms.ECAlgorithm.SHA256
        ).sign(f"{head}.{body}".encode(), self.key)  # fmt: skip
        return f"{head}.{body}.{part(signature)}"
