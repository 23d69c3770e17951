"""Python 3.14 as a standalone build, in a folder, with the base and what its tests need.

Such a build (of uv, of miniforge and of many tools) is made for old systems, so its `os` lacks what
the C library of then did not have. A Go module carries it, and `go` checks what it downloads.
"""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

MODULE = "github.com/kluctl/go-embed-python"
VERSION = "v0.0.0-3.14.6-20260610-1"
SUM = "h1:oGUS7++Wm3LgxUfD6AmJgKbKQD2wdQFO9PzyJv6T+E4="
SYMLINK, FOLDER = 1 << 27, 1 << 31
"""Bits of a mode, as Go writes it."""


def main() -> str | None:
    """Make the folder that the command names, and install; return what is missing."""
    folder, root = Path(sys.argv[1]), Path(__file__).parents[1]
    python = folder / "venv/bin/python"
    wanted = f"{VERSION}\n{root}\n{(root / 'pyproject.toml').read_text('utf-8')}"
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return None
    if shutil.which("go") is None:
        return "go is missing, which fetches Python 3.14 (sudo apt-get install golang-go)."
    print(f"Fetching Python 3.14 into {folder} and installing '.[test]', once: about a minute")
    shutil.rmtree(folder, ignore_errors=True)
    data = fetch(VERSION, SUM)
    if isinstance(data, str):
        return data
    system = _told("go", "env", "GOOS", "GOARCH").stdout.split()
    unpack(data / "-".join(system), folder / "python")
    steps = (
        [folder / "python/bin/python3.14", "-m", "venv", "--without-pip", folder / "venv"],
        [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python),
            *("install", "--quiet", "pip", "--editable", f"{root}[test]"),
        ],
    )
    for step in steps:
        if subprocess.run(step).returncode:
            return f"Python 3.14 was not set up: this failed: {' '.join(map(str, step))}"
    stamp.write_text(wanted, "utf-8")
    return None


def fetch(version: str, checksum: str) -> Path | str:
    """Return the folder of a version of the module that has a Python for each system, or what
    went wrong."""
    found = _told("go", "mod", "download", "-json", f"{MODULE}@{version}")
    module = json.loads(found.stdout or "{}")
    if found.returncode or module.get("Sum") != checksum:
        return f"Python was not fetched: {module.get('Error') or found.stderr or module}"
    return Path(module["Dir"], "python/internal/data")


def _told(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True)


def unpack(source: Path, folder: Path) -> None:
    """Copy what the module has of one system, its large files unpacked."""
    for one in json.loads((source / "files.json").read_text("utf-8"))["files"]:
        path, packed = folder / one["name"], source / f"{one['name']}.gz"
        if one["perm"] & FOLDER:
            path.mkdir(parents=True)
        elif one["perm"] & SYMLINK:
            path.symlink_to(one["symlink"])
        else:
            data = gzip.decompress(packed.read_bytes()) if packed.exists() else None
            path.write_bytes((source / one["name"]).read_bytes() if data is None else data)
            path.chmod(one["perm"] & 0o777)


if __name__ == "__main__":
    sys.exit(main())
