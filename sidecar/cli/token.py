"""Command `token`: signed tokens of clients."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sidecar import errors
from sidecar.auth.identity import Scope
from sidecar.cli.common_options import argument, option, subcommands
from sidecar.cli.output import print_error_line, print_text

if TYPE_CHECKING:
    from sidecar.auth.token_issuing import TokenIssuer
_DATE = "%Y-%m-%d %H:%M"
_ROW = "{:<32}  {:<8}  {:<16}  {:<16}  {:<16}  {:<8}  {}\n"

FOLDER = option(None, "Use this folder of keys and lists instead of the default.", metavar="DIR")


def token() -> None:
    """Issue, list and revoke signed tokens of clients (JWT, ES256).

    Keys and lists of issued and revoked tokens are in a folder: the data folder's `tokens`, or the
    one that --folder names. A service needs `public` (--token-keys) and, beside it, `revoked.txt`;
    `private` stays on the machine that issues tokens.

    Examples:

    * `vibevoice-asr token create --subject anna --expires 90d`
    * `vibevoice-asr token revoke anna`
    * `vibevoice-asr token keys --new`: sign with a new key; old tokens stay valid until that key is
      deleted
    """


def build() -> typer.Typer:
    """Return the command group `token`."""
    return subcommands(token, _create, _list, _revoke, _keys)


def _create(
    subject: str = option(
        ..., "Name the owner of jobs that are sent with this token.", metavar="NAME"
    ),
    expires: str | None = option(
        None, "Let it expire after this time, such as '90d'; default: never.", metavar="duration"
    ),
    scope: list[str] | None = option(
        None, "What it allows beside transcribing, more than once", choices=Scope
    ),
    hotwords: str = option("", "Expect these names and terms in its recordings.", metavar="WORDS"),
    folder: Path | None = FOLDER,
) -> None:
    """Issue a token and print it; it is stored nowhere."""
    issuer = _issuer(folder)
    token, issue = issuer.create(subject, _seconds(expires), _scopes(scope or ()), hotwords)
    until = f"until {issue.expires:{_DATE}} UTC" if issue.expires else "until it is revoked"
    print_error_line(f"a token for {issue.subject}, {until}; its id is {issue.token_id}")
    print_text(f"{token}\n")


def _list(folder: Path | None = FOLDER) -> None:
    """List the issued tokens, with their owners and whether they are valid."""
    from sidecar.clock import utc_now

    issuer = _issuer(folder)
    revoked, now = issuer.revoked(), utc_now()
    if sys.stdout.isatty():  # a program that reads the list gets rows alone
        print_text(_ROW.format("id", "state", "name", "made (UTC)", "until", "key", "scopes"))
    for issue in issuer.issued():
        expired = issue.expires is not None and issue.expires <= now
        state = "revoked" if issue.token_id in revoked else "expired" if expired else "counts"
        made = f"{issue.issued:{_DATE}}"
        until = f"{issue.expires:{_DATE}}" if issue.expires else "for ever"
        words = issue.subject, made, until, issue.key[:8], " ".join(issue.scopes)
        print_text(_ROW.format(issue.token_id, state, *words))


def _revoke(
    who: str = argument(..., "A subject, or a token's id.", metavar="NAME_OR_ID"),
    folder: Path | None = FOLDER,
) -> None:
    """Revoke all tokens of a subject, or one by its id."""
    issuer = _issuer(folder)
    before = issuer.revoked()
    ids = frozenset(issuer.revoke(who))
    already = f" (already: {len(ids & before)})" if ids & before else ""
    print_error_line(
        f"{len(ids - before)} revoked{already} in {issuer.revoked_file}; services that read it "
        "know in seconds"
    )


def _keys(
    new: bool = option(False, "Create a key pair that signs from now on."),
    folder: Path | None = FOLDER,
) -> None:
    """List the keys, the signing one last; create a pair if there is none."""
    issuer = _issuer(folder)
    if new or not issuer.keys.names():
        issuer.rotate()
    print_error_line("ids of the keys, the last one signs:")
    print_text("".join(f"{name}\n" for name in issuer.keys.names()))
    print_error_line(f"public keys, for --token-keys: {issuer.keys.public}")
    print_error_line(f"revoked tokens: {issuer.revoked_file}")


def _issuer(folder: Path | None) -> TokenIssuer:
    from sidecar.auth.token_issuing import SUBFOLDER, TokenIssuer
    from sidecar.observability.logs import default_data_folder
    from sidecar.plugins import load_settings

    if folder is None:
        data = default_data_folder(load_settings().data_dir)
        if data is None:
            raise errors.SettingsInvalid("There is no data folder.", hint="Use --folder.")
        folder = data / SUBFOLDER
    return TokenIssuer(folder)


def _seconds(expires: str | None) -> float | None:
    from sidecar.config.settings import parse_duration

    try:
        value: Any = parse_duration(expires)
    except ValueError as error:
        raise errors.SettingsInvalid(
            f"'{expires}' is {error}.", hint="Use a duration such as '90d'."
        ) from None
    return None if value is None else float(value)


def _scopes(names: Sequence[str]) -> list[Scope]:
    for name in names:
        if name not in set(Scope):
            raise errors.SettingsInvalid(
                f"There is no scope '{name}'.", hint=f"One of {', '.join(Scope)}."
            )
    return [Scope(name) for name in names]
