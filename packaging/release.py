"""The files of a release, in one folder: ``python packaging/release.py OUT [EXECUTABLE_FOLDER…]``.

Into OUT go the wheels and source distributions of the service, its Python client and the plugin for
ggml (checked by twine), the wheel of models that `make models` left, the crates of Rust and Tauri,
the packages of JavaScript, the folder of each executable as an archive with its bill of materials
and as a module, the licences, the notes from CHANGELOG.md, and SHA256SUMS. Needs the packages build
and twine, and the programs cargo and npm. `release_trials.py` tries the files out.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

import module
from triple import target_triple

ROOT = Path(__file__).resolve().parents[1]
PYTHON_PACKAGES = (".", "clients/python", "plugins/vibevoice-asr-ggml")
LEFT_BY_SETUPTOOLS = shutil.ignore_patterns("*.egg-info", "build", "__pycache__")
CRATES = ("clients/rust", "clients/tauri")
NPM_PACKAGES = ("clients/js", "clients/tauri/guest-js")
STARTS = {"windows": "Start.cmd", "darwin": "Start.command", "linux": "vibevoice-asr.desktop"}
"""What a person double-clicks, by the system in the triple: it opens the page."""


def main() -> int:
    """Make the folder anew; 1 if the changelog has no notes for the version."""
    out = Path(sys.argv[1]).resolve()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    if (notes := release_notes(changelog, version)) is None:
        print(f"CHANGELOG.md has no section [{version}].", file=sys.stderr)
        return 1
    if missing := [name for name in ("cargo", "npm") if shutil.which(name) is None]:
        print(f"{', '.join(missing)}: missing, for the packages of clients", file=sys.stderr)
        return 1
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for folder in PYTHON_PACKAGES:
        with tempfile.TemporaryDirectory(prefix="vibevoice-package-") as name:
            source = ROOT / folder
            if folder != ".":  # setuptools leaves metadata behind, by which our tests find a plugin
                source = shutil.copytree(source, Path(name, "source"), ignore=LEFT_BY_SETUPTOOLS)
            _run(sys.executable, "-m", "build", "--outdir", out, source)
    _run(sys.executable, "-m", "twine", "check", "--strict", *out.iterdir())
    for wheel in (ROOT / "dist" / "models").glob("*.whl"):
        shutil.copy(wheel, out)
    pack_crates(out)
    for folder in NPM_PACKAGES:
        _run("npm", "pack", "--silent", "--pack-destination", out, folder=ROOT / folder)
    for folder in map(Path, sys.argv[2:]):
        pack(folder, out, version)
        add_on = module.write_archive(out, folder, module.ID, version)
        add_on.rename(out / f"{add_on.stem}-module-{triple_of(folder)}.zip")
    for licence in ("LICENSE", "THIRD_PARTY_LICENSES.md"):
        shutil.copy(ROOT / licence, out)
    (out / "NOTES.md").write_text(notes, "utf-8")
    write_checksums(out)
    print("\n".join(f"{one.name}: {one.stat().st_size:,} bytes" for one in sorted(out.iterdir())))
    return 0


def release_notes(changelog: str, version: str) -> str | None:
    """Return the section of a version, without its heading; None if there is none."""
    sections = re.split(r"(?m)^## ", changelog)
    found = [one for one in sections if one.startswith(f"[{version}]")]
    return found[0].partition("\n")[2].strip() + "\n" if found else None


def pack_crates(out: Path) -> None:
    """Package the crates without a build. Tauri's asks an index for the other, which is in none."""
    other = f"patch.crates-io.vibevoice-asr.path={str(ROOT / CRATES[0])!r}"
    with tempfile.TemporaryDirectory(prefix="vibevoice-crates-") as target:
        words = ("--no-verify", "--allow-dirty", "--quiet", "--target-dir", target)
        for folder in CRATES:
            patch = () if folder == CRATES[0] else ("--config", other)
            manifest = ROOT / folder / "Cargo.toml"
            _run("cargo", "package", *words, *patch, "--manifest-path", manifest)
        for crate in Path(target, "package").glob("*.crate"):
            shutil.copy(crate, out)


def pack(folder: Path, out: Path, version: str) -> None:
    """Archive the folder of an executable, under a name with the target triple, with what a person
    double-clicks; put its bill of materials beside it."""
    if not (folder / "sbom.cdx.json").is_file():
        raise SystemExit(f"{folder} has no bill of materials: make exe")
    triple = triple_of(folder)
    name, root = f"{folder.name}-{version}-{triple}", f"{folder.name}-{triple}"
    start = next(file for system, file in STARTS.items() if system in triple)
    if start == STARTS["windows"]:
        with zipfile.ZipFile(out / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, Path(root, path.relative_to(folder)))
            archive.write(ROOT / "packaging/start" / start, Path(root, start))
    else:
        with tarfile.open(out / f"{name}.tar.xz", "w:xz") as packed:  # keeps the modes
            packed.add(folder, root)
            packed.add(ROOT / "packaging/start" / start, f"{root}/{start}")
    shutil.copyfile(folder / "sbom.cdx.json", out / f"{name}.sbom.cdx.json")


def triple_of(folder: Path) -> str:
    """Return the target triple of an executable's folder, which may be one for Windows."""
    windows = (folder / f"{folder.name}.exe").is_file()
    return target_triple("Windows", "AMD64") if windows else target_triple()


def write_checksums(out: Path) -> None:
    """Write SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [
        f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n"
        for one in sorted(out.iterdir())
    ]
    (out / "SHA256SUMS").write_text("".join(lines), "utf-8")


def _run(*words: str | Path, folder: Path = ROOT) -> None:
    subprocess.run(words, cwd=folder, check=True)


if __name__ == "__main__":
    sys.exit(main())
