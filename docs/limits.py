"""Tables of the least and the most that the fields of a wire's messages take, by their schemas."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sidecar.api.live_messages import LiveBeginRequest as BeginLive

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- limits: by docs/generate.py -->\n", "<!-- end of the limits -->\n"
PAGES: Mapping[str, type[BaseModel]] = {"live-wire.md": BeginLive}
"""The pages that have such a table, and the message in it."""
HEAD = ("field", "least", "most", "default")

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def limits_page(name: str, table: Table) -> str:
    """The page as it is written, with the limits as they are."""
    text = (DOCS / name).read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table(HEAD, list(_rows(PAGES[name])))}{END}{after}"


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
