"""Token of this start, which the service demands, and the one that our own commands send."""

from __future__ import annotations

import os
import re
import secrets

from pydantic import SecretStr

from sidecar.config.secret_settings import read_secret, secret_origin
from sidecar.config.settings import MIN_TOKEN_CHARACTERS, Settings
from sidecar.errors import SettingsInvalid

GENERATED_TOKEN_BYTES = 32
CLIENT_TOKEN_VARIABLE = "VIBEVOICE_CLIENT_TOKEN"  # noqa: S105 - a name
"""Variable of the token that our own commands send. VIBEVOICE_TOKEN is what a service that is
started demands: a shell that has both a client and a service to run needs two names."""
_SIGNED = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]*")
"""A JWT: its first part is JSON, whose opening '{\"' reads 'eyJ' in base64."""


def resolve_token(settings: Settings) -> Settings:
    """The settings with the token that they lead to; never from the command line.

    Raises:
        errors.SettingsInvalid: there are two, or none where one was promised, or it is no secret
            or a signed one, which is a client's.
    """
    if settings.token is not None and settings.generate_token:
        raise SettingsInvalid(
            "The settings token and generate_token exclude each other.", hint="Remove one of them."
        )
    token = service_token(settings)
    if token is not None and _SIGNED.fullmatch(token):
        raise SettingsInvalid(
            "The setting token (VIBEVOICE_TOKEN) is a signed token (JWT). Whoever has it would own "
            "this service with every scope, and neither its end nor a revocation would count.",
            hint=f"A client sends it: move it to {CLIENT_TOKEN_VARIABLE}, and unset "
            "VIBEVOICE_TOKEN. The service checks signed tokens by --token-keys.",
        )
    if settings.generate_token:
        token = secrets.token_urlsafe(GENERATED_TOKEN_BYTES)
    return settings.model_copy(update={"token": SecretStr(token)}) if token else settings


def service_token(settings: Settings) -> str | None:
    """The token that a service with these settings demands, if they have one.

    Raises:
        errors.SettingsInvalid: the file with it cannot be used, or holds none.
    """
    if settings.token is None:
        return None
    return _check_token(read_secret(settings.token), secret_origin(settings.token, "token"))


def client_token(settings: Settings, given: str | None = None) -> str | None:
    """The token that our own commands send to a service: ``given`` by --token, else that of
    VIBEVOICE_CLIENT_TOKEN, else the one that a service here would demand. '@FILE' is what a file
    has.

    Raises:
        errors.SettingsInvalid: the file with it cannot be used, or holds none.
    """
    if said := given or os.environ.get(CLIENT_TOKEN_VARIABLE):
        token = read_secret(SecretStr(said))
        if not token or not token.isascii() or not token.isprintable():
            where = "--token" if given else CLIENT_TOKEN_VARIABLE
            raise SettingsInvalid(
                f"{where} has no valid token: it is empty or has characters other than "
                "printable ASCII."
            )
        return token
    return service_token(settings)


def _check_token(token: str, where: str) -> str:
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable():
        raise SettingsInvalid(
            f"{where} has no token of at least {MIN_TOKEN_CHARACTERS} printable ASCII characters."
        )
    return token
