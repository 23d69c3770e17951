"""Which service a command asks, and whom it believes there: the same options for every word."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sidecar.cli.said import complain

SERVER_HELP = "Address of a running service, such as http://127.0.0.1:8765."
ELSE_OURS = f"{SERVER_HELP} Without it: where the settings say."
_OPTIONS = {
    "token": Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="What the service wants to see. Others may read command lines: VIBEVOICE_TOKEN or "
            "VIBEVOICE_TOKEN_FILE keep it to yourself.",
        ),
    ],
    "ca_cert": Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate of the service, or of its signer."),
    ],
    "fingerprint": Annotated[
        str | None, typer.Option(metavar="SHA256", help="Fingerprint of the service's certificate.")
    ],
    "insecure": Annotated[
        bool,
        typer.Option("--insecure", help="Believe any certificate, of anybody in between too."),
    ],
}


def addressed(command: Callable[..., None], help: str = SERVER_HELP) -> Callable[..., None]:
    """A command for typer that has these options instead of its keyword ``where``, which says what
    came of them; ``help`` is that of --server. It ends where that cannot be."""

    def run(**given: Any) -> None:
        said = {name: given.pop(name) for name in ("server", *_OPTIONS)}
        command(where=_where(**said), **given)

    server = Annotated[str | None, typer.Option(metavar="URL", help=help)]
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name == "insecure" else None,
            annotation=annotation,
        )
        for name, annotation in {"server": server, **_OPTIONS}.items()
    ]
    parameters: list[inspect.Parameter] = []
    own = inspect.signature(command, eval_str=True, locals={"Where": object})
    for parameter in own.parameters.values():
        keyword = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += options if parameter.name == "where" else [keyword]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _where(
    server: str | None,
    token: str | None,
    ca_cert: Path | None,
    fingerprint: str | None,
    insecure: bool,
) -> Any:
    from sidecar import errors
    from sidecar.cli.backends import Where
    from sidecar.cli.trust import of_flags

    try:
        return Where(server, token, of_flags(ca_cert, fingerprint, insecure))
    except errors.SidecarError as error:
        raise typer.Exit(complain(error)) from None
