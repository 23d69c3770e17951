"""A module archive around the executable: `python packaging/module.py OUT EXECUTABLE_FOLDER URL`.

For hosts that take add-ons as a zip with a manifest (`trispr-module.json`), a checksum and an index
(`modules-index.json`), as Trispr Flow does: kind "sidecar", one executable that the host starts.
The executable is `bin/whisper-server`, which takes the words of whisper.cpp's server
(docs/module.md). URL is the folder from which the archive will be downloaded. ID, another name of
the module, comes from the environment.
"""

import hashlib
import json
import os
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MANIFEST, INDEX = "trispr-module.json", "modules-index.json"
SCHEMA_VERSION = 1
ID, NAME = "vibevoice_asr", "VibeVoice ASR"
PROGRAM, FOLDER = "whisper-server", "bin"
MIN_APP_VERSION = "0.8.5"
"""The first host that takes modules."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of all files, the earliest of a zip: the same build makes the same archive."""


def main() -> int:
    """Write the archive, its checksum and the index."""
    out, executable, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    name = os.environ.get("ID", ID)
    out.mkdir(parents=True, exist_ok=True)
    archive = write_archive(out, executable, name, version)
    write_index(archive, name, version, url)
    print(f"{archive}: {archive.stat().st_size:,} bytes")
    return 0


def manifest(name: str, version: str, entry: str) -> dict[str, Any]:
    """The manifest of a module whose executable is ``entry``, a path inside the archive."""
    return {
        "schema_version": SCHEMA_VERSION,
        "id": name,
        "name": NAME,
        "version": version,
        "kind": "sidecar",
        "host_capability": "",
        "entrypoint": entry,
        "required_assets": [
            {"id": "libraries", "path": f"{FOLDER}/_internal", "kind": "directory"}
        ],
        "sub_capabilities": [],
        "executable_hooks": [],
    }


def write_archive(out: Path, executable: Path, name: str, version: str) -> Path:
    """Write the archive of an executable's folder; links become files, which hosts demand.

    Raises:
        SystemExit: the folder has no executable or no licences.
    """
    program = next((one for one in executable.iterdir() if one.stem == executable.name), None)
    if program is None or not (executable / "licences").is_dir():
        raise SystemExit(f"{executable} is no build: make exe")
    entry = f"{FOLDER}/{PROGRAM}{program.suffix}"
    archive = out / f"{name}-{version}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        text = json.dumps(manifest(name, version, entry), indent=2) + "\n"
        _add(packed, MANIFEST, text.encode(), 0o644)
        for path in sorted(executable.rglob("*")):
            if path.is_file():
                inside = f"{FOLDER}/{path.relative_to(executable).as_posix()}"
                target = entry if path == program else inside
                _add(packed, target, path.read_bytes(), path.stat().st_mode & 0o777)
    return archive


def write_index(archive: Path, name: str, version: str, url: str) -> None:
    """Write the checksum and the index with this one module beside the archive."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_suffix(".sha256").write_text(f"{digest}  {archive.name}\n", "utf-8")
    entry = {
        "id": name,
        "kind": "sidecar",
        "name": NAME,
        "version": version,
        "asset_url": f"{url.rstrip('/')}/{archive.name}",
        "sha256": digest,
        "size": archive.stat().st_size,
        "min_app_version": MIN_APP_VERSION,
    }
    index = {"schema_version": SCHEMA_VERSION, "modules": [entry]}
    archive.with_name(INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _add(packed: zipfile.ZipFile, name: str, content: bytes, mode: int) -> None:
    about = zipfile.ZipInfo(name, EPOCH)
    about.compress_type = zipfile.ZIP_DEFLATED
    about.external_attr = (0o100000 | mode) << 16
    packed.writestr(about, content)


if __name__ == "__main__":
    sys.exit(main())
