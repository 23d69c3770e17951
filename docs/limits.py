"""Tables of the least and the most that the fields of a wire's messages take, by their schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from sidecar.api.live_messages import LiveBeginRequest as BeginLive
from sidecar.protocols.s2s import messages as s2s_messages

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- limits: by docs/generate.py -->\n", "<!-- end of the limits -->\n"
PAGES: Mapping[str, Sequence[type[BaseModel]]] = {
    "live-wire.md": (BeginLive,),
    "talk-wire.md": get_args(s2s_messages.S2SCommand),
}
"""The pages that have such a table, and the messages in it."""
HEAD = ("field", "least", "most", "default")
"""Without the last one if no field of the page has a description, which stands beside it."""

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def limits_page(name: str, table: Table) -> str:
    """The page as it is written, with the limits as they are."""
    text = (DOCS / name).read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = dict.fromkeys(row for model in PAGES[name] for row in _rows(model))
    width = 4 if any(usual for *_, usual in rows) else 3
    return f"{before}{BEGIN}{table(HEAD[:width], [row[:width] for row in rows])}{END}{after}"


def _rows(model: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    schema = model.model_json_schema()
    yield from _of(schema["properties"], schema.get("$defs", {}), "")


def _of(
    fields: Mapping[str, Any], known: Mapping[str, Any], before: str
) -> Iterator[tuple[str, str, str, str]]:
    for name, field in fields.items():
        meaning = field.get("description")
        usual = f"{field['default']:g}: {meaning}" if meaning else ""
        for one in (field, *field.get("anyOf", ())):
            kind = known.get(one.get("$ref", "").rpartition("/")[2], one)
            if "properties" in kind:
                yield from _of(kind["properties"], known, f"{before}{name}.")
            elif "maxLength" in kind:
                yield f"`{before}{name}`", "", f"{kind['maxLength']:,} characters", usual
            elif most := kind.get("maximum", kind.get("exclusiveMaximum")):
                least = kind["minimum"]
                last = most if "maximum" in kind else most - 1
                yield f"`{before}{name}`", f"{least:,}", f"{last:,}", usual
