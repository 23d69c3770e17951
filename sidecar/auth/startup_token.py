"""Token of this start: given, from a file, or made."""

from __future__ import annotations

import secrets

from pydantic import SecretStr

from sidecar.config.secret_settings import read_secret, secret_origin
from sidecar.config.settings import MIN_TOKEN_CHARACTERS, Settings
from sidecar.errors import SettingsInvalid

GENERATED_TOKEN_BYTES = 32


def resolve_token(settings: Settings) -> Settings:
    """The settings with the token that they lead to; never from the command line.

    Raises:
        errors.SettingsInvalid: there are two, or none where one was promised, or it is no secret.
    """
    if settings.token is not None and settings.generate_token:
        raise SettingsInvalid(
            "The settings token and generate_token each give a token.", hint="Keep one of them."
        )
    token = client_token(settings)
    if settings.generate_token:
        token = secrets.token_urlsafe(GENERATED_TOKEN_BYTES)
    return settings.model_copy(update={"token": SecretStr(token)}) if token else settings


def client_token(settings: Settings) -> str | None:
    """The token that our own command line sends to a service, if it knows one.

    Raises:
        errors.SettingsInvalid: the file with it cannot be used, or holds none.
    """
    if settings.token is None:
        return None
    return _check_token(read_secret(settings.token), secret_origin(settings.token, "token"))


def _check_token(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise SettingsInvalid(
            f"{where} holds no token of at least {MIN_TOKEN_CHARACTERS} printable ASCII characters."
        )
    return token
