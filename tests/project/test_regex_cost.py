"""Every regular expression of the package takes a number of steps that grows with its input.

They are found in the source, so that none is forgotten; a client's header, text or transcript may
be what they look at, and one that takes quadratic time holds up everybody on the event loop.
"""

import ast
import functools
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from many_cases import for_each
from regex_steps import superlinear

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients/python/src"
SOURCES = [*(ROOT / "sidecar").rglob("*.py"), *CLIENT.rglob("*.py")]
METHODS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
NEEDED = re.compile(r"\bre\.").search
"""In the source of a module that has an expression."""
USES = re.compile(rf"\b([A-Z_0-9]+)\s*\.\s*({'|'.join(METHODS)})\b").findall
"""Of a source: constants, and the methods that are called of them."""
MADE: Mapping[str, str] = {
    "sidecar/audio/audio_format.py:signs": r"RIF[FX].{4}WAVE|wvpk.{4}[\2-\x10]\x04.{6}(?!\0{4})"
    r"|ftyp(?<=\0\0\0[\x10-\x60]ftyp)[ -~]{4}|\x1aE\xdf\xa3(?=.{0,40}(?:matroska|webm))",
    "sidecar/cli/doctor.py:folder": r"C:[\\/]{1,4}Users[\\/]{1,4}Anna(?: |%20)Muster(?!\w)",
    "sidecar/interfaces/tts_text.py:close": r"\n[ ]{0,3}`{3,}[ \t]*(?:\n|$)",
    "sidecar/plugins/conversation/tts/voice_download.py:pattern": r"sha-256=:([^:]+):"
    r"|md5=([^,\s]+)|(\S+)",
}
"""For expressions that are made while the service runs: one that is like them."""
BOUNDED: Mapping[str, str] = {
    "sidecar/plugins/conversation/tts/moonshine_tts.py:_OWN_CHOICE": "paths of the library's own"
}
"""Those that may take longer, and what they look at that no client sends."""

USED: Mapping[str, set[str]] = {"_FIELD": {"fullmatch"}}
"""How others use those that are handed to them: h11 matches whole lines."""


@dataclass(frozen=True, slots=True)
class Found:
    """An expression of the source, and the ways in which it is looked for."""

    where: str
    pattern: re.Pattern[str]
    methods: frozenset[str]

    def __str__(self) -> str:
        return f"{self.where} {self.pattern.pattern[:40]}"


def expressions() -> Iterator[Found]:
    """All of the package and its client."""
    texts = {path: path.read_text("utf-8") for path in sorted(SOURCES)}
    trees = {path: [*ast.walk(ast.parse(texts[path]))] for path in texts if NEEDED(texts[path])}
    used = _used(texts.values())
    for path, nodes in trees.items():
        names = {
            id(node.value): node.targets[0].id
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in nodes:
            if not _is_call_of_re(node):
                continue
            assert isinstance(node, ast.Call)
            assert isinstance(node.func, ast.Attribute)
            method = node.func.attr
            if method in ("escape", "purge"):
                continue
            name = names.get(id(node)) or ast.unparse(node.args[0])
            where = f"{path.relative_to(ROOT).as_posix()}:{name}"
            ways = {method} if method in METHODS else used.get(names.get(id(node), ""), {"sub"})
            yield Found(where, _compiled(path, node, where), frozenset(ways))


def _is_call_of_re(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
    )


def _used(sources: Iterable[str]) -> dict[str, set[str]]:
    """By the name of a constant: the methods that are called of it, wherever that is."""
    found: dict[str, set[str]] = {name: {*ways} for name, ways in USED.items()}
    for source in sources:
        for name, method in USES(source):
            if name.isupper():
                found.setdefault(name, set()).add(method)
    return found


def _compiled(path: Path, call: ast.Call, where: str) -> re.Pattern[str]:
    flags = [one for one in [*call.args[1:], *(each.value for each in call.keywords)]
             if "re." in ast.unparse(one)]  # fmt: skip
    text = MADE[where] if where in MADE else _value(path, call.args[0])
    value = sum(eval(ast.unparse(one), {"re": re}) for one in flags)
    return re.compile(text, value)


def _value(path: Path, node: ast.expr) -> str:
    """The text of an expression; constants of its module are known, if it needs any."""
    if isinstance(node, ast.Constant):
        raw = node.value
        return raw.decode("latin-1") if isinstance(raw, bytes) else str(raw)
    base = CLIENT if path.is_relative_to(CLIENT) else ROOT
    module = importlib.import_module(".".join(path.relative_to(base).with_suffix("").parts))
    try:
        return str(eval(ast.unparse(node), vars(module)))
    except NameError:
        raise AssertionError(f"{path}: name one like {ast.unparse(node)} in MADE") from None


@functools.cache
def all_found() -> tuple[Found, ...]:
    """All of them, found once."""
    return tuple(expressions())


def must_be_quick() -> list[Found]:
    """Those that a client's words may reach."""
    return [one for one in all_found() if one.where not in BOUNDED]


@for_each("one", must_be_quick)
def test_regular_expressions_take_linear_steps(one: Found) -> None:
    for method in sorted(one.methods):
        worst = superlinear(one.pattern, method)
        assert worst is None, f"{method} of {one.pattern.pattern!r}: more of {worst!r}"


def test_search_finds_over_60_regular_expressions_and_no_import_from_re() -> None:
    assert len(all_found()) > 60
    for path in SOURCES:
        assert "from re import" not in path.read_text("utf-8"), path
    assert {*MADE, *BOUNDED} <= {one.where for one in all_found()}


@pytest.mark.slow_except("(a+)+$", "bytes")
@pytest.mark.parametrize(
    ("text", "method"),
    [
        (r'\s*(?:W/)?"([^"]{0,40})"\s*(?:,|$)', "sub"),  # of If-Match, as it was
        (r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", "fullmatch"),  # of Range, as it was
        (r"(a+)+$", "match"),
        (r"(a|a)*b", "match"),
        (r"(?:a*)*b", "match"),
        (r"^\s+|\s+$", "sub"),
        (r".*a.*b.*c", "match"),
        (r"x(?=\s+y)\s*z|\s+q", "search"),
    ],
)
def test_superlinear_regular_expression_is_found(text: str, method: str) -> None:
    assert superlinear(re.compile(text), method)
