"""Types of the clients in JavaScript and Rust, as the service's tables have them."""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sidecar.api.http.openapi import OPTIONS
from sidecar.api.job_schemas import PRIORITY
from sidecar.api.transcribe_routes import TranscribeSegment
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


class SegmentField:
    """Field of a segment as clients name it."""

    def __init__(self, name: str, field: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
        self.name, self.text = name, str(field.get("description", ""))
        self.is_required = name in schema["required"]
        alternatives = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
        [self._schema] = alternatives
        self._is_list = self._schema.get("type") == "array"

    @property
    def _kind(self) -> Mapping[str, Any]:
        kind: Mapping[str, Any] = self._schema["items"] if self._is_list else self._schema
        return kind

    @property
    def js_type(self) -> str:
        """Its type in JavaScript."""
        if values := self._kind.get("enum"):
            kind = " | ".join(f'"{one}"' for one in values)
            return f"({kind})[]" if self._is_list else kind
        kind = "Word" if "$ref" in self._kind else JS_KINDS[self._kind["type"]]
        return f"{kind}[]" if self._is_list else kind

    @property
    def rust_type(self) -> str:
        """Its type in Rust."""
        kind = "Word" if "$ref" in self._kind else RUST_KINDS[self._kind["type"]]
        return f"Vec<{kind}>" if self._is_list else kind


class ClientFiles:
    """Files of the clients and the page, as they are to be."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def replace(self, name: str, begin: str, end: str, lines: list[str], kinds: str = "") -> None:
        """Replace the lines of a file between two patterns, and with ``kinds``, a union, the type
        `Format`."""
        text = self.texts.get(name) or (ROOT / name).read_text("utf-8")
        if kinds:
            text = re.sub(r"(@typedef \{)[^{}]*(\} Format )", rf"\1{kinds}\2", text)
            text = re.sub(r"(export type Format = )[^;]*", rf"\1{kinds}", text)
        found = re.search(f"(?ms)^{begin}(.*?){end}", text)
        assert found is not None, name
        self.texts[name] = text[: found.start(1)] + "".join(lines) + text[found.end(1) :]


def client_files() -> dict[str, str]:
    """Return the files that have something of the service's tables, from this folder on."""
    files = ClientFiles()
    write_options(files)
    write_segments(files)
    write_formats(files)
    return {f"../{name}": text for name, text in files.texts.items()}


def options() -> list[ClientOption]:
    """All options of a job."""
    return [ClientOption(*one) for one in [*OPTIONS.items(), ("priority", PRIORITY)]]


def write_options(files: ClientFiles) -> None:
    """Write the options of a request into the files of the clients that have them."""
    ours = [one for one in options() if not one.is_alias]
    for source, known, lists in ((JS, options(), True), (TAURI, ours, False)):
        lines = [
            f" * @property {{{one.js_type(lists=lists)}}} [{one.name}] {one.text}\n"
            for one in known
        ]
        files.replace(source, r" \* @typedef \{object\} Options\n", r"^(?! \* @property)", lines)
        declared = source.replace("src/", "types/").replace(".js", ".d.ts")
        lines = [
            f"    /**\n     * {one.text}\n     */\n"
            f"    {one.name}?: {one.js_type(lists=lists)} | undefined;\n"
            for one in known
        ]
        files.replace(declared, r"export type Options = \{\n", r"^\};\n", lines)
    lines = []
    for one in ours:
        values = f": {', '.join(f'`{value}`' for value in one.values)}" if one.values else ""
        doc = textwrap.wrap(f"{one.text}{values}.", RUST_WIDTH)
        lines += [f"    /// {line}\n" for line in doc]
        lines.append('    #[serde(skip_serializing_if = "Option::is_none")]\n')
        lines.append(f"    pub {one.name}: Option<{RUST_KINDS[str(one.schema['type'])]}>,\n")
    files.replace(RUST, r"pub struct Options \{\n", r"^\}\n", lines)


def write_segments(files: ClientFiles) -> None:
    """Write the fields of a segment into the files of the clients that have them."""
    schema = TranscribeSegment.model_json_schema()
    fields = [SegmentField(name, one, schema) for name, one in schema["properties"].items()]
    for source in (JS, TAURI):
        lines = [
            f" * @property {{{one.js_type}}} {one.name if one.is_required else f'[{one.name}]'}"
            f" {one.text}".rstrip()
            + "\n"
            for one in fields
        ]
        files.replace(source, r" \* @typedef \{object\} Segment\n", r"^(?! \* @property)", lines)
        declared = source.replace("src/", "types/").replace(".js", ".d.ts")
        lines = [
            (f"    /**\n     * {one.text}\n     */\n" if one.text else "")
            + f"    {one.name}{'' if one.is_required else '?'}: {one.js_type}"
            + f"{'' if one.is_required else ' | undefined'};\n"
            for one in fields
        ]
        files.replace(declared, r"export type Segment = \{\n", r"^\};\n", lines)
    lines = []
    for one in fields:
        lines += [f"    /// {line}\n" for line in textwrap.wrap(one.text, RUST_WIDTH)]
        if not one.is_required:
            lines.append('    #[serde(skip_serializing_if = "Option::is_none")]\n')
        kind = one.rust_type if one.is_required else f"Option<{one.rust_type}>"
        lines.append(f"    pub {one.name}: {kind},\n")
    files.replace(RUST, r"pub struct Segment \{\n", r"^\}\n", lines)


def write_formats(files: ClientFiles) -> None:
    """Write the output formats into the files of clients and page that list them."""
    names = [f'"{name}"' for name in sorted(FORMATS, key=lambda name: name != "json")]
    listed, either = ", ".join(names), " | ".join(names)
    files.replace(PYTHON_CALLS, r"FORMATS = \(", r"\)$", [listed])
    files.replace(JS_CALLS, r"  /\*\* @type \{const\} \*/ \(\[", r"\]", [listed], either)
    files.replace(JS_CALLS_TYPES, r"export const FORMATS: readonly \[", r"\]", [listed], either)
    rows = [
        f'  ["{name}", "{FORMATS[name].label}", "{file_extension(name)}"],\n'
        for name in sorted(FORMATS, key=lambda name: name == "json")
    ]
    files.replace(PAGE, r"  \[\"plain\", [^\n]+\n", r"^\];\n", rows)
