"""How long it takes to refuse a token, by what is wrong with it: ``python -m bench.token_timing``.

Processor time of `auth.signed_tokens.Verifier.verify`, all kinds in turns of random order.
*told apart* is how often a token of this kind takes longer than a good one with a bad signature
(the area under the ROC curve): 0.5 where one measurement tells nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from bisect import bisect_left, bisect_right
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from bench import serving
from sidecar.auth.signed_tokens import ALGORITHM, AUDIENCE, TokenVerifier
from sidecar.auth.token_issuing import TokenIssuer

CLAIMS = {"sub": "anna", "jti": "0123456789abcdef0123456789abcdef", "aud": AUDIENCE}
AGAINST = "another signature, first byte"


def kinds(issuer: TokenIssuer) -> dict[str, str]:
    """A token of each kind."""
    good = issuer.create("anna")[0]
    head, _, signature = good.rpartition(".")
    name, key = issuer.keys.signer()
    own = ec.generate_private_key(ec.SECP256R1())

    def signed(claims: dict[str, object], with_key: object = key, kid: str = name) -> str:
        return jwt.encode(CLAIMS | claims, with_key, ALGORITHM, {"kid": kid})  # type: ignore[arg-type]

    def flipped(at: int) -> str:
        other = "A" if signature[at] != "A" else "B"
        return f"{head}.{signature[:at]}{other}{signature[at + 1 :]}"

    return {
        "good": good,
        AGAINST: flipped(0),
        "another signature, late byte": flipped(-4),
        "signed by another key": signed({}, own),
        "a key that is not known": signed({}, own, "nobody"),
        "expired": signed({"exp": 1}),
        "for another audience": signed({"aud": "elsewhere"}),
        "no token at all": "x" * len(good),
    }


def apart(values: list[float], others: list[float]) -> float:
    """How often one of the values is above one of the others."""
    others = sorted(others)
    below = sum(bisect_left(others, one) + bisect_right(others, one) for one in values)
    return below / 2 / len(values) / len(others)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3000)
    given = parser.parse_args()
    print(serving.machine())
    with tempfile.TemporaryDirectory() as folder:
        issuer = TokenIssuer(Path(folder))
        tokens = kinds(issuer)
        name, key = issuer.keys.signer()
        public = {name: key.public_key()}
        verifier = TokenVerifier(lambda: public, frozenset)
        taken: dict[str, list[float]] = {kind: [] for kind in tokens}
        order = list(tokens)
        for _ in range(given.rounds):
            random.shuffle(order)
            for kind in order:
                begun = time.thread_time_ns()
                claims = verifier.verify(tokens[kind])
                taken[kind].append((time.thread_time_ns() - begun) / 1e3)
                assert (claims is not None) == (kind == "good"), kind
    rows = [
        [kind, f"{statistics.median(each):.0f}", f"{apart(each, taken[AGAINST]):.2f}"]
        for kind, each in taken.items()
    ]
    title = f"CPU µs of a check, median of {given.rounds}"
    serving.table(title, ("token", "CPU µs", "told apart"), rows)


if __name__ == "__main__":
    main()
