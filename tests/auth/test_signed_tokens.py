"""Signed tokens: what counts, what does not, and that only the holder of a token is told why."""

import contextlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jwt
import pytest
from token_attacks import CLAIMS, Attacker

from sidecar import clock, errors
from sidecar.auth import signed_tokens
from sidecar.auth.identity import AuthMethod, Identity, SignedCredential
from sidecar.auth.signed_tokens import LEEWAY_S
from sidecar.auth.token_issuing import TokenIssuer


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Attacker:
    return Attacker(TokenIssuer(tmp_path_factory.mktemp("tokens")))


def verifier_of(issuer: TokenIssuer) -> signed_tokens.TokenVerifier:
    public = signed_tokens.read_public_keys(issuer.keys.public)
    return signed_tokens.TokenVerifier(lambda: public, issuer.revoked)


def verified(verifier: signed_tokens.TokenVerifier, token: str) -> Identity | None:
    """Whom a token identifies; `None` if it is refused."""
    try:
        return verifier.verify(token)
    except errors.TokenInvalid:
        return None


def test_unknown_key_is_logged_shortened_without_control_characters(
    attacker: Attacker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = verifier_of(attacker.issuer)
    elsewhere = TokenIssuer(tmp_path / "other")
    token, issue = elsewhere.create("anna")
    assert verified(verifier, token) is None
    assert f"signed by an unknown key, '{issue.key}'" in caplog.text
    caplog.clear()
    _, _, signature = token.partition(".")
    head = jwt.utils.base64url_encode(
        b'{"alg":"ES256","kid":"a\\nforged ' + 900 * b"b" + b'"}'
    ).decode()
    assert verified(verifier, f"{head}.{signature}") is None
    (said,) = caplog.messages
    assert len(said) < 250
    assert said.isprintable()


def test_every_attack_is_refused_and_every_issued_token_accepted(attacker: Attacker) -> None:
    verifier = verifier_of(attacker.issuer)
    let_in = [name for name, token in attacker.tokens().items() if verified(verifier, token)]
    assert let_in == []
    # What the attacks are made of would do, but for what is wrong with each.
    for token, jti in (attacker.good, attacker.good_id), (attacker.signed({}), CLAIMS["jti"]):
        found = verified(verifier, token)
        assert found == Identity("anna", AuthMethod.JWT)
        assert found.credential == SignedCredential(jti, attacker.kid)
    assert verified(verifier, attacker.with_kid(attacker.kid))


def test_accepted_token_is_refused_once_it_expires_is_revoked_or_its_key_is_removed(
    attacker: Attacker,
) -> None:
    now = 1_800_000_000.0
    known, revoked = signed_tokens.read_public_keys(attacker.issuer.keys.public), set[str]()
    verifier = signed_tokens.TokenVerifier(lambda: known, lambda: frozenset(revoked), lambda: now)
    claims = verified(verifier, attacker.signed({"exp": int(now)}))
    assert claims is not None
    assert claims.credential is not None
    assert claims.credential == SignedCredential(CLAIMS["jti"], attacker.kid, int(now))
    for later, why in ((0.0, None), (LEEWAY_S - 0.5, None), (float(LEEWAY_S), "has expired")):
        now = 1_800_000_000.0 + later
        assert verifier.refusal(claims.credential) == why
    now = 0.0
    revoked.add(CLAIMS["jti"])
    assert verifier.refusal(claims.credential) == "was revoked"
    revoked.clear()
    known.clear()
    assert "key" in str(verifier.refusal(claims.credential))


def test_refused_token_says_expired_or_revoked_only_if_a_known_key_has_signed_it(
    attacker: Attacker,
) -> None:
    revoked = set[str]()
    public = signed_tokens.read_public_keys(attacker.issuer.keys.public)
    verifier = signed_tokens.TokenVerifier(lambda: public, lambda: frozenset(revoked))

    def detail(token: str) -> str:
        with pytest.raises(errors.TokenInvalid) as refused:
            verifier.verify(token)
        return refused.value.detail

    old, good = attacker.signed({"exp": 1_000_000_000}), attacker.signed({})
    assert detail(old) == "This token has expired."
    assert detail(old[:-4]) == detail("x") == errors.TokenInvalid().detail
    assert verifier.verify(good).subject == "anna"
    revoked.add(CLAIMS["jti"])
    assert detail(good) == "This token was revoked."
    head, claims, _ = good.split(".")
    forged = ".".join((head, claims, old.split(".")[2]))
    assert detail(forged) == errors.TokenInvalid().detail


def test_signature_of_an_accepted_token_is_verified_again_only_if_it_may_be_refused(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, checks = clock.wall_time(), 0
    known, revoked = signed_tokens.read_public_keys(attacker.issuer.keys.public), set[str]()
    public = dict(known)
    verifier = signed_tokens.TokenVerifier(lambda: public, lambda: frozenset(revoked), lambda: now)
    real = jwt.algorithms.ECAlgorithm.verify

    def verify(*args: Any) -> bool:
        nonlocal checks
        checks += 1
        return real(*args)

    monkeypatch.setattr(jwt.algorithms.ECAlgorithm, "verify", verify)
    token = attacker.signed({"exp": int(now) + 3600})
    claims = verified(verifier, token)
    assert claims is not None
    assert (verified(verifier, token), checks) == (claims, 1)
    now += 3600 + LEEWAY_S
    verified(verifier, token)
    assert checks == 2
    now -= 3600 + LEEWAY_S
    revoked.add(CLAIMS["jti"])
    assert (verified(verifier, token), checks) == (None, 3)
    revoked.clear()
    public.clear()
    assert (verified(verifier, token), checks) == (None, 4)
    public.update(known)
    assert (verified(verifier, token), checks) == (claims, 4)
    for number in range(signed_tokens.MAX_ACCEPTED):
        assert verified(verifier, attacker.signed({"sub": f"a{number}"}))
    verified(verifier, token)
    assert checks == 5 + signed_tokens.MAX_ACCEPTED, "the oldest is forgotten"


def test_each_token_right_or_wrong_costs_one_signature_check_of_bounded_size(
    attacker: Attacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong token costs what a right one does: counted, at the last step before OpenSSL."""
    verifier = verifier_of(attacker.issuer)
    checked: list[int] = []
    real, convert = jwt.algorithms.ECAlgorithm.verify, jwt.algorithms.raw_to_der_signature

    def verify(self: Any, message: bytes, key: Any, signature: bytes) -> bool:
        with contextlib.suppress(ValueError):  # there OpenSSL would not be asked
            convert(signature, key.curve)
            checked.append(len(message))
        return real(self, message, key, signature)

    monkeypatch.setattr(jwt.algorithms.ECAlgorithm, "verify", verify)
    counts = Counter[int]()
    for token in [attacker.good, *attacker.tokens().values()]:
        checked.clear()
        verified(verifier, token)
        counts[len(checked)] += 1
        assert all(size <= signed_tokens.MAX_TOKEN_CHARACTERS for size in checked)
    assert set(counts) == {1}


def test_new_key_signs_and_the_old_one_is_valid_until_deleted(tmp_path: Path) -> None:
    issuer = TokenIssuer(tmp_path)
    old, _ = issuer.create("anna")
    name = issuer.rotate()
    new, _ = issuer.create("anna")
    assert jwt.get_unverified_header(new)["kid"] == name != jwt.get_unverified_header(old)["kid"]
    verifier = verifier_of(issuer)
    assert verified(verifier, old)
    assert verified(verifier, new)
    sorted(issuer.keys.public.iterdir())[0].unlink()
    verifier = verifier_of(issuer)
    assert verified(verifier, old) is None
    assert verified(verifier, new)


def test_signed_tokens_without_pyjwt_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(errors.SettingsInvalid) as refused:
        signed_tokens.TokenVerifier(dict, frozenset)
    assert "pip install -e '.[auth]'" in refused.value.hint
    with pytest.raises(errors.SettingsInvalid, match="not installed"):
        TokenIssuer(tmp_path).create("anna")
