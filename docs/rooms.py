"""The rooms of `sidecar/` and what is in them, by the first lines of their docstrings."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOUSE = ROOT / "sidecar"
BEGIN, END = "<!-- rooms: by docs/generate.py -->\n", "<!-- end of the rooms -->\n"

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def layers() -> list[list[str]]:
    """Return the rooms from the top to the bottom, as pyproject.toml has them, tier by tier."""
    held = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    contract = next(each for each in held["contracts"] if each["type"] == "layers")
    return [
        [name.removeprefix("sidecar.").replace(".", "/") for name in layer.split(" : ")]
        for layer in contract["layers"]
    ]


def rooms_page(mark: str) -> str:
    """Every module with what it is, room by room."""
    rooms = [room for layer in layers() for room in layer]
    alone = [HOUSE / f"{room}.py" for room in rooms if not (HOUSE / room).is_dir()]
    sections = [_section("Alone", alone, HOUSE)]
    for room in rooms:
        folder = HOUSE / room
        if folder.is_dir():
            modules = [path for path in modules_of(folder) if path != folder / "__init__.py"]
            sections.append(_section(f"{room}/", modules, folder))
    return f"""{mark}
# Modules

Every module of `sidecar/` in one line, the first of its docstring. The packages:
[architecture.md](architecture.md#packages).

{"".join(sections)}"""


def architecture_page(table: Table) -> str:
    """The architecture as it is written, with the rooms as they are."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = [(_label(room), said(_file(room))) for layer in layers() for room in layer]
    return f"{before}{BEGIN}{table(('room', 'what it is'), rows)}{END}{after}"


def modules_of(folder: Path) -> list[Path]:
    """The modules of a folder and of those in it; what is generated is none."""
    return sorted(path for path in folder.rglob("*.py") if not path.stem.endswith("_pb2"))


def said(path: Path) -> str:
    """What a module, or a package by its folder, says in its first line."""
    file = path / "__init__.py" if path.is_dir() else path
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    line = docstring.partition("\n")[0]
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", line)


def _section(title: str, modules: Iterable[Path], top: Path) -> str:
    told = {_name(path, top): said(path) for path in modules}
    plain = [name for name, line in told.items() if line == f"Command `{name}`."]
    rows = "".join(f"- `{name}`: {line}\n" for name, line in told.items() if name not in plain)
    if plain:
        rows += f"- {', '.join(f'`{name}`' for name in plain)}: the commands of these names.\n"
    return f"## {title}\n\n{rows}\n" if rows else ""


def _name(path: Path, top: Path) -> str:
    name = path.relative_to(top).with_suffix("").as_posix()
    return f"{name.removesuffix('/__init__')}/" if path.stem == "__init__" else name


def _file(room: str) -> Path:
    return HOUSE / room if (HOUSE / room).is_dir() else HOUSE / f"{room}.py"


def _label(room: str) -> str:
    return (
        f"[`{room}/`](rooms.md#{room.replace('/', '')})"
        if (HOUSE / room).is_dir()
        else f"`{room}.py`"
    )
