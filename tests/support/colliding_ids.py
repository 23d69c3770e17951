"""Tests whose verdict depends on random values.

    .venv/bin/python tests/support/colliding_ids.py [FILE …] [--seeds 1 2]

runs the fast tests, or those of these files, with random bytes that collide as soon as they can: in
the tests and in every Python process that they start, the first bytes of ids, tokens and keys are,
in hexadecimal digits or in Base64, the short texts whose absence some test asserts (`short_marks`).
Each run has another order of sets (``PYTHONHASHSEED``). What fails here fails elsewhere by chance.
Values of fewer than 14 bytes stay random: they are names of temporary files, which have to differ.
"""

import argparse
import ast
import base64
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXTS = "TEST_COLLIDING_TEXTS"
"""Variable with the texts for the processes that tests start, between spaces."""
HEX = re.compile("[0-9a-f]{2,12}")
BASE64 = re.compile(r"[\w-]{2,4}", re.ASCII)
USUAL = "aaaa", "abcdef", "0000", "ffff", "0123456789ab", "1234", "deadbeef", "cafe", "11", "42"
"""What people write for a text of hexadecimal digits: marks that `short_marks` does not see."""
HEAD_BYTES, RANDOM_BYTES = 6, 8
"""Bytes of a value that collide: in a UUID the version follows; and that at least stay random."""


@dataclass(frozen=True)
class ShortMark:
    """A text whose absence is asserted; a random id contains it by chance."""

    file: str
    line: int
    text: str
    where: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.text!r} not in {self.where}"


def short_marks(pattern: re.Pattern[str] = HEX, root: Path = ROOT) -> list[ShortMark]:
    """Return the marks in the tests below ``root`` that are such text; of ids that are written in
    hexadecimal digits, as all of ours are, or in Base64."""
    files = sorted((root / "tests").rglob("*.py"))
    return [
        mark
        for path in files
        if "third_party" not in path.parts
        for mark in _in_file(path, pattern, root)
    ]


def _in_file(path: Path, pattern: re.Pattern[str], root: Path) -> Iterator[ShortMark]:
    text = path.read_text("utf-8")
    if "assert" not in text:
        return
    tree = ast.parse(text)
    values = _values(tree)
    for check in ast.walk(tree):
        for mark, where in _absent(check) if isinstance(check, ast.Assert) else ():
            for found in sorted(_texts(mark, values)):
                if pattern.fullmatch(found):
                    file = path.relative_to(root).as_posix()
                    yield ShortMark(file, mark.lineno, found, ast.unparse(where))


def _absent(check: ast.Assert) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Yield each text that an assertion does not want, or counts, and where."""
    denied = {
        id(inner)
        for node in ast.walk(check)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        for inner in ast.walk(node)
    }
    for node in ast.walk(check):
        match node:
            case ast.Compare(left, [ast.NotIn()], [where]):
                yield left, where
            case ast.Compare(left, [ast.In()], [where]) if id(node) in denied:
                yield left, where
            case ast.Call(ast.Attribute(where, "count"), [counted]):
                yield counted, where


def _values(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what is given to each name by an assignment, a loop or a parametrized test."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                found.setdefault(name, []).append(value)
            case ast.For(target=ast.Name(name), iter=ast.Tuple(each) | ast.List(each)):
                found.setdefault(name, []).extend(each)
            case ast.comprehension(target=ast.Name(name), iter=ast.Tuple(each) | ast.List(each)):
                found.setdefault(name, []).extend(each)
            case ast.Call(args=[ast.Constant(str(name)), ast.Tuple(each) | ast.List(each), *_]):
                found.setdefault(name, []).extend(each)
    return found


def _texts(node: ast.expr, values: dict[str, list[ast.expr]]) -> set[str]:
    match node:
        case ast.Constant(str(text)):
            return {text}
        case ast.Constant(bytes(data)):
            return {data.decode("latin-1")}
        case ast.Name(name):
            each = values.get(name, [])
            return set().union(*(_texts(one, {}) for one in each))
        case ast.Call(func=ast.Attribute(ast.Constant() as said, "encode")):
            return _texts(said, values)
        case ast.BinOp(ast.Constant() as said, ast.Mult(), ast.Constant(int(times))):
            return {text * times for text in _texts(said, values)}
    return set()


def colliding(texts: Iterable[str], fresh: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return a source of bytes, as ``fresh`` is one, whose values begin with these texts in turn:
    in hexadecimal digits and in Base64 by turns."""
    heads: dict[bool, list[bytes]] = {True: [], False: []}
    for text in texts:
        if hexadecimal := HEX.fullmatch(text) is not None:
            head = bytes.fromhex((text * HEAD_BYTES * 2)[: HEAD_BYTES * 2])
        else:
            head = base64.urlsafe_b64decode(text.ljust(HEAD_BYTES * 4 // 3, "A"))
        heads[hexadecimal].append(head)
    turns = itertools.cycle([itertools.cycle(each) for each in heads.values() if each])

    def read(size: int) -> bytes:
        if size < HEAD_BYTES + RANDOM_BYTES:
            return fresh(size)
        return next(next(turns)) + fresh(size - HEAD_BYTES)

    return read


def install(texts: Iterable[str]) -> None:
    """Take this source for ids and tokens of this process."""
    os.urandom = colliding(texts, os.urandom)
    random._urandom = os.urandom  # type: ignore[attr-defined]  # that of `secrets`


def run(seed: int, files: list[str], processes: int, texts: Iterable[str]) -> int:
    """Run tests with one order of sets; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(
            f"import os, sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
            f"import colliding_ids\ncolliding_ids.install(os.environ[{TEXTS!r}].split())\n",
            encoding="utf-8",
        )
        paths = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        given = {"PYTHONPATH": paths, "PYTHONHASHSEED": str(seed), TEXTS: " ".join(texts)}
        command = [sys.executable, "-m", "pytest", "-rfE", "-m", "not slow"]
        command += ["-n", str(processes), "--dist", "loadfile", *files]
        return subprocess.run(command, cwd=ROOT, env=os.environ | given).returncode


def main() -> int:
    """List the marks of hexadecimal digits, and run the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--processes", type=int, default=3)
    given = parser.parse_args()
    marks = short_marks()
    for mark in marks:
        print(mark)
    texts = sorted({*USUAL, *(one.text for one in [*marks, *short_marks(BASE64)])})
    codes = [run(seed, given.files, given.processes, texts) for seed in given.seeds]
    return int(any([*marks, *codes]))


if __name__ == "__main__":
    sys.exit(main())
