"""THIRD_PARTY_LICENSES.md against what is locked for images and what its metadata say."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from many_cases import for_each

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "sidecar/api/static/vendor"
TEXT = (ROOT / "THIRD_PARTY_LICENSES.md").read_text("utf-8")
FAMILIES = ("Apache", "BSD", "GPL", "ISC", "LGPL", "MIT", "MPL", "PSF")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def stated() -> dict[str, str]:
    """What each line says of each name: the licence is the cell behind the one with the names."""
    found: dict[str, str] = {}
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or set(line) <= set("|- "):
            continue
        what, licence = cells[1:3] if len(cells) == 4 else cells[:2]
        for name in re.findall(r"[\w.-]+", re.sub(r"\([^)]*\)", "", what)):
            found.setdefault(normal(name), licence)
    return found


def locked() -> list[str]:
    text = (ROOT / "packaging/locks/image-cuda.txt").read_text("utf-8")
    names = re.findall(r"(?m)^([\w.-]+)==\S+(?: ; (.*?))? \\$", text)
    return sorted({name for name, marker in names if "== 'emscripten'" not in marker})


def families(text: str) -> set[str]:
    return {one for one in FAMILIES if re.search(rf"(?<![A-Z]){one}", text)}


@for_each("name", locked)
def test_locked_package_of_image_is_listed_with_the_licence_of_its_metadata(name: str) -> None:
    licence = stated().get(normal(name))
    assert licence, f"{name} has no line in THIRD_PARTY_LICENSES.md"
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return  # of another system, or of the image with CUDA
    said = metadata.get("License-Expression") or " ".join(
        [
            (metadata.get("License") or "").split("\n")[0],
            *(one for one in metadata.get_all("Classifier") or [] if one.startswith("License")),
        ]
    ).replace("Mozilla Public License", "MPL")
    assert families(said) <= families(licence), f"{name}: {said}, and the line says {licence}"


@pytest.mark.parametrize(
    "name", ["Swagger", "libpq", "ffmpeg", "libsndfile", "libsoxr", "htm", "preact"]
)
def test_parts_of_wheels_and_page_have_licence_line(name: str) -> None:
    assert normal(name) in stated()


def test_wheel_declares_and_ships_licences_of_vendored_javascript() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    copied = {path.name.split(".")[0]: path for path in VENDOR.glob("*.LICENSE.txt")}
    assert {path.stem for path in VENDOR.glob("*.js")} - {"hooks"} == set(copied)
    licences = {
        "Apache-2.0" if "Apache" in path.read_text("utf-8") else "MIT" for path in copied.values()
    }
    assert set(project["license"].split(" AND ")) == licences | {"MIT"}
    listed = {path for pattern in project["license-files"] for path in ROOT.glob(pattern)}
    assert listed >= {*copied.values(), ROOT / "LICENSE"}
