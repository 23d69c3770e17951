"""Releases: the notes come from the changelog, and every file has a checksum."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import vibevoice_asr_client
from not_tested import missing
from service_process import new_file

import sidecar

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

from release import (  # noqa: E402
    CRATES,
    NPM_PACKAGES,
    PYTHON_PACKAGES,
    STARTS,
    pack,
    release_notes,
    write_checksums,
)
from triple import target_triple  # noqa: E402

CHANGELOG = """# Changelog

## [Unreleased]

- Not yet.

## [0.2.0] - 2026-11-22

### Fixed

- One thing.

## [0.1.0] - 2026-11-20
"""


def test_release_notes_are_changelog_section_of_the_version_or_none() -> None:
    assert release_notes(CHANGELOG, "0.2.0") == "### Fixed\n\n- One thing.\n"
    assert release_notes(CHANGELOG, "0.3.0") is None


def test_all_packages_have_one_version_and_changelog_has_its_notes() -> None:
    versions = {
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text("utf-8"))["project"]["version"]
        for folder in PYTHON_PACKAGES
    }
    versions |= {
        json.loads((ROOT / folder / "package.json").read_text("utf-8"))["version"]
        for folder in NPM_PACKAGES
    }
    crates = [tomllib.loads((ROOT / folder / "Cargo.toml").read_text("utf-8")) for folder in CRATES]
    versions |= {crate["package"]["version"] for crate in crates}
    versions |= {crates[1]["dependencies"]["vibevoice-asr"]["version"]}
    versions |= {sidecar.__version__.partition("+")[0], vibevoice_asr_client.__version__}
    (version,) = versions
    assert release_notes((ROOT / "CHANGELOG.md").read_text("utf-8"), version)


def test_changelog_has_at_most_ten_lines_of_at_most_250_characters_for_each_release() -> None:
    """A line is what a user would tell a colleague; what a user must do is in docs/upgrading.md."""
    sections = re.split(r"(?m)^## ", (ROOT / "CHANGELOG.md").read_text("utf-8"))[1:]
    for section in sections:
        heading, *lines = filter(None, section.splitlines())
        assert 1 <= len(lines) <= 10, heading
        for line in lines:
            assert line.startswith("- "), line
            assert len(line) <= 250, line


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason=missing("sha256sum", "coreutils"))
def test_release_archive_keeps_executable_mode_and_released_files_pass_sha256sum(
    tmp_path: Path,
) -> None:
    folder, out = tmp_path / "vibevoice-asr", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "sbom.cdx.json").write_text("{}", "utf-8")
    new_file(folder / "vibevoice-asr", "#!/bin/sh\n", 0o755)
    pack(folder, out, "0.2.0")
    write_checksums(out)
    (archive,) = out.glob("*.tar.xz")
    assert archive.name == f"vibevoice-asr-0.2.0-{target_triple()}.tar.xz"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out, check=True)
    subprocess.run(["tar", "-xJf", archive], cwd=tmp_path, check=True)
    unpacked = tmp_path / f"vibevoice-asr-{target_triple()}"
    assert (unpacked / "vibevoice-asr").stat().st_mode & 0o777 == 0o755
    (start,) = (one for one in unpacked.iterdir() if one.name in STARTS.values())
    assert start.stat().st_mode & 0o100  # desktops refuse one that is not executable
    assert len((out / "SHA256SUMS").read_text("utf-8").splitlines()) == 2


def test_release_of_executable_for_windows_is_a_zip_named_by_its_own_triple(tmp_path: Path) -> None:
    folder, out = tmp_path / "vibevoice-asr", tmp_path / "out"
    for made in (folder / "_internal", out):
        made.mkdir(parents=True)
    files = {"sbom.cdx.json": "{}", "vibevoice-asr.exe": "MZ", "_internal/python311.dll": "MZ"}
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    pack(folder, out, "0.2.0")
    triple = "x86_64-pc-windows-msvc"
    with zipfile.ZipFile(out / f"vibevoice-asr-0.2.0-{triple}.zip") as archive:
        inside = {name for name in archive.namelist() if not name.endswith("/")}
    assert inside == {f"vibevoice-asr-{triple}/{name}" for name in (*files, "Start.cmd")}
    assert (out / f"vibevoice-asr-0.2.0-{triple}.sbom.cdx.json").is_file()


def test_release_without_bill_of_materials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="bill of materials"):
        pack(tmp_path, tmp_path, "0.2.0")


def test_target_triples_are_those_of_rust() -> None:
    assert target_triple("Windows", "AMD64") == "x86_64-pc-windows-msvc"
    assert target_triple("Darwin", "arm64") == "aarch64-apple-darwin"
    assert target_triple("Linux", "aarch64") == "aarch64-unknown-linux-gnu"


def test_target_triple_of_this_machine_is_that_of_its_rust() -> None:
    rustc = shutil.which("rustc")
    if rustc is None:
        pytest.skip(missing("rustc", "rustc"))
    told = subprocess.run([rustc, "-vV"], capture_output=True, text=True, check=False)
    if told.returncode:  # rustup's, and no toolchain is chosen
        pytest.skip(f"rustc does not run: {told.stderr.partition(chr(10))[0]}")
    assert f"host: {target_triple()}" in told.stdout
