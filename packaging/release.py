"""The files of a release, in one folder: ``python packaging/release.py OUT [EXECUTABLE_FOLDER]``.

Into OUT go the wheel and the source distribution (checked by twine, the wheel installed in an empty
environment where both of its commands run), the wheel of models that `make models` left, the folder
of the executable as an archive with its bill of materials, the notes from CHANGELOG.md, and
SHA256SUMS. Needs the packages build and twine.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

from triple import target_triple

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("vibevoice-asr", "vvv")


def main() -> int:
    """Make the folder anew; 1 if the changelog has no notes for the version."""
    out = Path(sys.argv[1]).resolve()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    if (notes := release_notes(changelog, version)) is None:
        print(f"CHANGELOG.md has no section [{version}].", file=sys.stderr)
        return 1
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _python("-m", "build", "--outdir", str(out), str(ROOT))
    distributions = sorted(out.iterdir())
    _python("-m", "twine", "check", "--strict", *map(str, distributions))
    try_wheel(next(one for one in distributions if one.suffix == ".whl"), version)
    for wheel in (ROOT / "dist" / "models").glob("*.whl"):
        shutil.copy(wheel, out)
    for folder in map(Path, sys.argv[2:]):
        pack(folder, out, version)
    (out / "NOTES.md").write_text(notes, "utf-8")
    write_checksums(out)
    print("\n".join(f"{one.name}: {one.stat().st_size:,} bytes" for one in sorted(out.iterdir())))
    return 0


def release_notes(changelog: str, version: str) -> str | None:
    """Return the section of a version, without its heading; None if there is none."""
    sections = re.split(r"(?m)^## ", changelog)
    found = [one for one in sections if one.startswith(f"[{version}]")]
    return found[0].partition("\n")[2].strip() + "\n" if found else None


def try_wheel(wheel: Path, version: str) -> None:
    """Install a wheel in an empty environment and run its commands.

    Raises:
        subprocess.CalledProcessError: it cannot be installed, or a command fails.
    """
    with tempfile.TemporaryDirectory(prefix="vibevoice-release-") as name:
        venv.create(name, with_pip=True)
        programs = Path(name) / ("Scripts" if sys.platform == "win32" else "bin")
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", str(wheel)]
        subprocess.run([programs / "python", *pip], check=True)
        for command in COMMANDS:
            subprocess.run(
                [programs / command, "--help"], check=True, stdout=subprocess.DEVNULL, cwd=name
            )
        said = subprocess.run(
            [programs / COMMANDS[0], "--version"], check=True, capture_output=True, text=True
        ).stdout
        if version not in said:
            raise SystemExit(f"the wheel of {version} says {said.strip()}")


def pack(folder: Path, out: Path, version: str) -> None:
    """Archive the folder of an executable, under a name with the target triple, and put its bill of
    materials beside it."""
    if not (folder / "sbom.cdx.json").is_file():
        raise SystemExit(f"{folder} has no bill of materials: make exe")
    windows = (folder / f"{folder.name}.exe").is_file()
    triple = target_triple("Windows", "AMD64") if windows else target_triple()
    name, root = f"{folder.name}-{version}-{triple}", f"{folder.name}-{triple}"
    if windows:
        with zipfile.ZipFile(out / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, Path(root, path.relative_to(folder)))
    else:
        with tarfile.open(out / f"{name}.tar.xz", "w:xz") as packed:  # keeps the modes
            packed.add(folder, root)
    shutil.copyfile(folder / "sbom.cdx.json", out / f"{name}.sbom.cdx.json")


def write_checksums(out: Path) -> None:
    """Write SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [
        f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n"
        for one in sorted(out.iterdir())
    ]
    (out / "SHA256SUMS").write_text("".join(lines), "utf-8")


def _python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
