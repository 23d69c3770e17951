"""The bill of materials and the licences of a build: ``python packaging/bill.py BUILD SOURCES``.

BUILD is the folder that PyInstaller made, SOURCES the list of files that its spec wrote. Into
BUILD go `licences/` and `sbom.cdx.json` (CycloneDX, made by cyclonedx-py of the environment, less
what is not inside, plus what no package manager knows).
"""

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from itertools import takewhile
from pathlib import Path
from typing import Any

from inside import (
    STATED,
    WITHIN,
    Within,
    debian_package,
    normal,
    owners,
    parts_of,
    version_within,
)

ROOT = Path(__file__).resolve().parents[1]
TEXTS = Path(__file__).with_name("licences")
LICENCE_FILE = re.compile(
    r"(^|/)(licen[cs]e|copying|notice|authors|copyright)[^/]*$", re.IGNORECASE
)
BOM, FOLDER = "sbom.cdx.json", "licences"


def main() -> None:
    """Write both into the build, and say how many parts there are."""
    build, listed = Path(sys.argv[1]), Path(sys.argv[2])
    sources = [Path(line) for line in listed.read_text("utf-8").splitlines() if line]
    inside, rest = owners(sources)
    bill = bill_of(inside, list(system_libraries(rest)), build)
    (build / BOM).write_text(json.dumps(bill, indent=1), encoding="utf-8")
    write_licences(inside, rest, build / FOLDER)
    print(f"{build / BOM}: {len(bill['components'])} components, {len(inside)} Python packages")


def bill_of(
    inside: list[Distribution], libraries: list[dict[str, Any]], build: Path
) -> dict[str, Any]:
    """The CycloneDX document."""
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-format", "JSON",
        "--spec-version", "1.6", "--pyproject", str(ROOT / "pyproject.toml"), sys.executable,
    ]  # fmt: skip
    bill: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    names = {normal(one.metadata["Name"]) for one in inside}
    components = [one for one in bill["components"] if normal(one["name"]) in names]
    for one in components:
        if said := STATED.get(normal(one["name"])):
            one["licenses"] = [{"expression": said}]
        one.pop("externalReferences", None)  # where this machine took it from is nobody's business
    for package in sorted(names & WITHIN.keys()):
        components += [_within(part, package) for part in parts_of(package)]
    components += [_python(), *libraries]
    kept = {one["bom-ref"] for one in components}
    main_part = bill["metadata"]["component"]
    main_part["version"] = _version(build)
    main_part["hashes"] = [_hash(path) for path in build.iterdir() if path.stem == build.name]
    main_part.pop("externalReferences", None)
    bill["components"] = components
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid4()}"
    bill["dependencies"] = [
        {**one, "dependsOn": [ref for ref in one.get("dependsOn", ()) if ref in kept]}
        for one in bill.get("dependencies", ())
        if one["ref"] in kept or one["ref"] == main_part.get("bom-ref")
    ]
    return bill


def system_libraries(rest: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Shared libraries of the build machine that went along, with the package they belong to."""
    for path in sorted(rest):
        if not re.search(r"\.(so|dylib|dll)\b", path.name) or path.is_relative_to(sys.base_prefix):
            continue
        package, version = debian_package(path)
        yield {
            "type": "library",
            "bom-ref": f"file:{path.name}",
            "name": package or path.name,
            **({"version": version} if version else {}),
            "description": path.name,
            "hashes": [_hash(path)],
        }


def write_licences(inside: list[Distribution], rest: list[Path], folder: Path) -> None:
    """A folder per part with its texts, and a table of them all."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    rows = []
    for distribution in inside:
        name = normal(distribution.metadata["Name"])
        target = folder / f"{name}-{distribution.version}"
        count = _copy_texts(distribution, target)
        for part in parts_of(name):
            if part.text:
                target.mkdir(exist_ok=True)
                shutil.copy(TEXTS / part.text, target)
            rows.append((f"… {part.name}, inside {name}", part.licence, part.text or "above"))
        said = declared(distribution)
        rows.append((f"{name} {distribution.version}", said, f"{count} files" if count else "—"))
    python = "Python-LICENSE.txt"
    own = (Path(one) / "LICENSE.txt" for one in (sysconfig.get_path("stdlib"), sys.base_prefix))
    kept = TEXTS / python  # for builds of Python that lost theirs
    shutil.copy(next(filter(Path.is_file, own), kept), folder / python)
    rows.append((f"Python {platform.python_version()}", "PSF-2.0", python))
    for package in sorted({debian_package(one)[0] for one in rest if ".so" in one.name} - {""}):
        if (text := Path("/usr/share/doc") / package / "copyright").is_file():
            shutil.copy(text, folder / f"{package}-copyright.txt")
            rows.append((package, "see the text", f"{package}-copyright.txt"))
    shutil.copy(ROOT / "LICENSE", folder)
    shutil.copy(ROOT / "THIRD_PARTY_LICENSES.md", folder)
    lines = ["| what | licence | text |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    head = (TEXTS / "README.md").read_text("utf-8")
    (folder / "README.md").write_text(head + "\n" + "\n".join(lines) + "\n", encoding="utf-8")


def declared(distribution: Distribution) -> str:
    """The licence that the metadata name, or that of the package's text where they are vague."""
    metadata = distribution.metadata
    if said := STATED.get(normal(metadata["Name"])):
        return said
    if said := metadata.get("License-Expression"):
        return str(said)
    classified = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    text = (metadata.get("License") or "").strip().split("\n")[0][:60]
    return "; ".join(classified) or text or "see the text"


def _copy_texts(distribution: Distribution, target: Path) -> int:
    count = 0
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if LICENCE_FILE.search(file.as_posix()) and source.suffix not in (".py", ".pyc"):
            if not source.is_file():
                continue
            target.mkdir(exist_ok=True)
            name = "-".join(file.parts[1:] if ".dist-info" in file.parts[0] else file.parts)
            shutil.copy(source, target / name.removeprefix("licenses-"))
            count += 1
    return count or _copy_header(distribution, target) or _copy_standard(distribution, target)


def _copy_standard(distribution: Distribution, target: Path) -> int:
    """Where a package only names its licence: the text of its repository that we keep, or that of
    the licence itself; 0 where we have none."""
    text = TEXTS / f"{normal(distribution.metadata['Name'])}.txt"
    if declared(distribution).startswith("Apache"):
        text = TEXTS / "Apache-2.0.txt"
    if not text.is_file():
        return 0
    target.mkdir(exist_ok=True)
    shutil.copy(text, target)
    return 1


def _copy_header(distribution: Distribution, target: Path) -> int:
    """Where a package has no file of its own for it, the licence stands at the head of a module."""
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if source.suffix == ".py" and source.is_file():
            lines = source.read_text("utf-8", "replace").splitlines()
            head = "\n".join(takewhile(lambda line: line.startswith("#") or not line, lines))
            if "copyright" in head.lower():
                target.mkdir(exist_ok=True)
                (target / "LICENSE-in-module.txt").write_text(head + "\n", encoding="utf-8")
                return 1
    return 0


def _within(part: Within, package: str) -> dict[str, Any]:
    version = version_within(part.name)
    return {
        "type": "library",
        "bom-ref": f"{package}/{part.name}",
        "name": part.name,
        **({"version": version} if version else {}),
        "description": f"inside {package}",
        "licenses": [_licence(part.licence)],
    }


def _licence(text: str) -> dict[str, Any]:
    """A licence as CycloneDX has it: an id of SPDX's list, else an expression."""
    if " " in text or text.startswith("LicenseRef-"):
        return {"expression": text}
    return {"license": {"id": text}}


def _python() -> dict[str, Any]:
    version = platform.python_version()
    return {
        "type": "framework",
        "bom-ref": f"cpython-{version}",
        "name": "cpython",
        "version": version,
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        "licenses": [{"license": {"id": "PSF-2.0"}}],
    }


def _version(build: Path) -> str:
    sys.path.insert(0, str(ROOT))
    from sidecar.version import build_version

    release = re.search(
        r'build_version\("([^"]+)"', (ROOT / "sidecar/version.py").read_text("utf-8")
    )
    assert release is not None
    for stamp in build.rglob("sidecar/REVISION"):
        return build_version(release[1], stamp.parent)
    return release[1]


def _hash(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {"alg": "SHA-256", "content": hashlib.file_digest(file, "sha256").hexdigest()}


if __name__ == "__main__":
    main()
