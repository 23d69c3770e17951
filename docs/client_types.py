"""Types of the clients in JavaScript and Rust, as the service's tables have them."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from sidecar.api.http.openapi import OPTIONS
from sidecar.api.job_schemas import PRIORITY
from sidecar.interfaces.request_fields import REQUEST_FIELDS
from sidecar.transcripts.transcript_formats import FORMATS, file_extension

ROOT = Path(__file__).resolve().parent.parent
JS, TAURI = "clients/js/src/wire.js", "clients/tauri/guest-js/src/wire.js"
RUST, PAGE = "clients/rust/src/wire.rs", "sidecar/api/static/pane.js"
PYTHON_CALLS = "clients/python/src/vibevoice_asr_client/calls.py"
JS_CALLS, JS_CALLS_TYPES = "clients/js/src/calls.js", "clients/js/types/calls.d.ts"
RUST_WIDTH = 92
RUST_KINDS = {"boolean": "bool", "integer": "u32", "number": "f64", "string": "String"}
JS_KINDS = {"boolean": "boolean", "integer": "number", "number": "number", "string": "string"}
_SENTENCE_END = re.compile(r"\. ")


class ClientOption:
    """Option of a request as clients name it."""

    def __init__(self, name: str, schema: Mapping[str, object]) -> None:
        row = REQUEST_FIELDS.get(name)
        self.name, self.schema = name, schema
        self.is_alias = row is not None and bool(row.same_as)
        self.is_list = row is not None and row.default == ()

    @property
    def text(self) -> str:
        """What it does, in a sentence, with the limits of a number."""
        sentence = _SENTENCE_END.split(str(self.schema["description"]))[0].rstrip(".")
        if self.schema["type"] == "string" or "maximum" not in self.schema:
            return sentence
        return f"{sentence} ({self.schema['minimum']} to {self.schema['maximum']})"

    @property
    def values(self) -> list[str]:
        """The values of a choice; none of anything else."""
        values = self.schema.get("enum", [])
        assert isinstance(values, list)
        return [str(one) for one in values]

    def js_type(self, *, lists: bool) -> str:
        """Its type in JavaScript; ``lists``: the client joins lists."""
        if self.values:
            return " | ".join(f'"{one}"' for one in self.values)
        kind = JS_KINDS[str(self.schema["type"])]
        return f"{kind} | {kind}[]" if lists and self.is_list else kind


def options() -> list[ClientOption]:
    """All options of a job."""
    return [ClientOption(*one) for one in [*OPTIONS.items(), ("priority", PRIORITY)]]


def option_files() -> Iterator[tuple[str, str]]:
    """Yield the files of the clients that have the options, with their texts."""
    ours = [one for one in options() if not one.is_alias]
    for source, known, lists in ((JS, options(), True), (TAURI, ours, False)):
        lines = [
            f" * @property {{{one.js_type(lists=lists)}}} [{one.name}] {one.text}\n"
            for one in known
        ]
        yield _replaced(source, r" \* @typedef \{object\} Options\n", r"^(?! \* @property)", lines)
        declared = source.replace("src/", "types/").replace(".js", ".d.ts")
        lines = [
            f"    /**\n     * {one.text}\n     */\n"
            f"    {one.name}?: {one.js_type(lists=lists)} | undefined;\n"
            for one in known
        ]
        yield _replaced(declared, r"export type Options = \{\n", r"^\};\n", lines)
    lines = []
    for one in ours:
        values = f": {', '.join(f'`{value}`' for value in one.values)}" if one.values else ""
        doc = textwrap.wrap(f"{one.text}{values}.", RUST_WIDTH)
        lines += [f"    /// {line}\n" for line in doc]
        lines.append('    #[serde(skip_serializing_if = "Option::is_none")]\n')
        lines.append(f"    pub {one.name}: Option<{RUST_KINDS[str(one.schema['type'])]}>,\n")
    yield _replaced(RUST, r"pub struct Options \{\n", r"^\}\n", lines)


def format_files() -> Iterator[tuple[str, str]]:
    """Yield the files of clients and page that list the output formats, with their texts."""
    names = [f'"{name}"' for name in sorted(FORMATS, key=lambda name: name != "json")]
    listed, either = ", ".join(names), " | ".join(names)
    yield _replaced(PYTHON_CALLS, r"FORMATS = \(", r"\)$", [listed])
    yield _replaced(JS_CALLS, r"  /\*\* @type \{const\} \*/ \(\[", r"\]", [listed], either)
    yield _replaced(JS_CALLS_TYPES, r"export const FORMATS: readonly \[", r"\]", [listed], either)
    rows = [
        f'  ["{name}", "{FORMATS[name].label}", "{file_extension(name)}"],\n'
        for name in sorted(FORMATS, key=lambda name: name == "json")
    ]
    yield _replaced(PAGE, r"  \[\"plain\", [^\n]+\n", r"^\];\n", rows)


def _replaced(
    name: str, begin: str, end: str, lines: list[str], kinds: str = ""
) -> tuple[str, str]:
    """Return a file as it is, with other lines between two patterns, and with the union ``kinds``
    as the type `Format`."""
    text = (ROOT / name).read_text("utf-8")
    if kinds:
        text = re.sub(r"(@typedef \{)[^{}]*(\} Format )", rf"\1{kinds}\2", text)
        text = re.sub(r"(export type Format = )[^;]*", rf"\1{kinds}", text)
    found = re.search(f"(?ms)^{begin}(.*?){end}", text)
    assert found is not None, name
    return f"../{name}", text[: found.start(1)] + "".join(lines) + text[found.end(1) :]
