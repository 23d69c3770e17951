"""`vibevoice-asr nodes`: what all that share their jobs are to have, and how far each is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidecar import errors
from sidecar.cli.asking import PrecisionOption
from sidecar.cli.backends import Where
from sidecar.cli.monitoring import meant
from sidecar.cli.said import INTERRUPTED, PROGRAM, complain

if TYPE_CHECKING:
    from collections.abc import Mapping

HELP = f"""
What all nodes are to have that share their jobs, and how far each of them is (docs/operations.md).

Any service of them may be asked that has VIBEVOICE_ADMIN; a signed token has to allow the scope
`admin`. What is said once every node brings itself to, a few at once, while the others work.

Examples:

* `{PROGRAM} nodes`: how far they are
* `{PROGRAM} nodes --precision int8`: the model that each was started with, at 8 bit
* `{PROGRAM} nodes --model medical --model-path /models/medical --at-once 2`
"""
TIMEOUT_S = 30.0


def nodes(
    precision: PrecisionOption = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="How the model is to be called.")
    ] = None,
    model_path: Annotated[
        str | None, typer.Option(metavar="DIR", help="Its folder, on every node.")
    ] = None,
    model_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Or its name, for Whisper.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(metavar="N", help="So many may load side by side (1).")
    ] = None,
    *,
    where: Where,
) -> None:
    """Options of the word `nodes`."""
    given = {
        "compute_type": precision,
        "model_id": model,
        "model_path": model_path,
        "model_size": model_size,
        "at_once": at_once,
    }
    wish = {name: value for name, value in given.items() if value is not None}
    try:
        asyncio.run(_say(where, wish))
    except errors.SidecarError as error:
        raise typer.Exit(complain(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _say(where: Where, wish: Mapping[str, Any]) -> None:
    where = meant(where)
    if wish:
        await _asked(where, "PUT", wish)
    answer = await _asked(where, "GET")
    for line in lines(answer):
        print(line)


def lines(answer: Mapping[str, Any]) -> list[str]:
    """What a service answers, for people. Pure."""
    desired = answer["desired"]
    if desired is None:
        found = ["nobody said what all nodes are to have"]
    else:
        what = f"{desired['model_id']} {desired['precision']}"
        found = [f"wish {desired['generation']}: {what}, {desired['at_once']} at once"]
    for one in answer["nodes"]:
        state = one["state"].replace("_", " ")
        reason = f" ({one['code']})" if one["code"] else ""
        has = f"{one['model']} {one['precision']}"
        found.append(f"{one['id'][:8]}  {one['name']:<20}  {has:<20}  {state}{reason}")
    return found


async def _asked(where: Where, method: str, body: Mapping[str, Any] | None = None) -> Any:
    """The service's answer.

    Raises:
        errors.SidecarError: it said no, or does not answer.
    """
    import httpx

    from sidecar.cli.remote import in_our_words, warn_of

    base = (where.server or "").rstrip("/")
    warn_of(where.trust)
    context = None
    if where.trust is not None and where.trust.given:
        with in_our_words():
            context = await asyncio.to_thread(where.trust.context, base)
    headers = {"Authorization": f"Bearer {where.token}"} if where.token else {}
    verify = True if context is None else context
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=verify) as http:
            answer = await http.request(method, f"{base}/admin/nodes", json=body, headers=headers)
        said = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        raise errors.ServiceUnreachable(f"No service answers at {base}.") from None
    if answer.is_success:
        return said
    code = said.get("error") or said.get("code")
    detail = said.get("detail") or f"The service answers with {answer.status_code}."
    raise errors.from_wire({"code": code, "detail": detail, "hint": said.get("hint", "")})
