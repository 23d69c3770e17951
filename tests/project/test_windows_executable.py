"""What the executable for Windows has beside that of other systems: resources in its file, and
each library that a bare Windows lacks. `make exe-windows` runs this with a built one."""

import hashlib
import importlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
from not_tested import MAKE, missing
from service_process import PATIENCE_S, service_environment, wait_for_ends, web

from sidecar.cli.open import sample

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "packaging"))
windows_parts = importlib.import_module("windows_parts")
release = importlib.import_module("release")

BUILT = os.environ.get("VIBEVOICE_EXECUTABLE", "")
built = pytest.mark.skipif(
    not BUILT.endswith(".exe"), reason=missing("an executable for Windows", "exe-windows", MAKE)
)
OF_WINDOWS = re.compile(
    r"(api-ms-win-[\w-]+|advapi32|avicap32|avrt|bcrypt|bcryptprimitives|cfgmgr32|comctl32|comdlg32|crypt32|dbghelp"
    r"|dxgi|gdi32|imagehlp|iphlpapi|kernel32|msimg32|msvcrt|ncrypt|netapi32|ntdll|ole32|oleaut32|pdh|powrprof|psapi"
    r"|rpcrt4|secur32|setupapi|shell32|shlwapi|ucrtbase|user32|userenv|version|winmm|wintrust|ws2_32"
    r"|wtsapi32)\.dll"
)
"""Libraries that every Windows 10 has in its own folder."""


def folder() -> Path:
    return Path(BUILT).resolve().parent


def opened(path: Path) -> Any:
    """A program or library, with its imports and resources read."""
    pefile = pytest.importorskip("pefile", reason="PyInstaller brings it on Windows")
    parsed = pefile.PE(str(path), fast_load=True)
    names = ("IMAGE_DIRECTORY_ENTRY_IMPORT", "IMAGE_DIRECTORY_ENTRY_RESOURCE")
    parsed.parse_data_directories([pefile.DIRECTORY_ENTRY[name] for name in names])
    return parsed


def resources(kind: str) -> Iterator[bytes]:
    """The resources of a kind in the executable."""
    pefile = pytest.importorskip("pefile", reason="PyInstaller brings it on Windows")
    parsed = opened(Path(BUILT))
    for entry in parsed.DIRECTORY_ENTRY_RESOURCE.entries:
        if entry.id == pefile.RESOURCE_TYPE[kind]:
            for one in entry.directory.entries:
                place = one.directory.entries[0].data.struct
                yield bytes(parsed.get_data(place.OffsetToData, place.Size))


def settings_of(manifest: bytes) -> dict[str, str]:
    """The elements of a manifest that have a text or a level, by name."""
    found = {}
    for element in ElementTree.fromstring(manifest).iter():
        name = element.tag.rpartition("}")[2]
        found[name] = (element.text or "").strip() or element.get("level", "")
    return found


def test_manifest_asks_for_no_rights_and_for_long_paths_and_utf_8() -> None:
    said = settings_of(windows_parts.MANIFEST.read_bytes())
    assert said["requestedExecutionLevel"] == "asInvoker"
    assert said["longPathAware"] == "true"
    assert said["activeCodePage"] == "UTF-8"


def test_icon_has_sizes_of_lists_and_of_large_tiles() -> None:
    data = windows_parts.ICON.read_bytes()
    (count,) = struct.unpack_from("<H", data, 4)
    sizes = {data[6 + 16 * number] or 256 for number in range(count)}
    assert sizes >= {16, 32, 48, 256}


@built
def test_each_library_that_build_imports_is_in_its_folder_or_part_of_windows() -> None:
    """Windows looks beside the library, and in the folders that Python and the loader name."""
    inside = folder() / "_internal"
    libraries = [path for path in folder().rglob("*") if path.suffix in (".dll", ".pyd", ".exe")]
    assert len(libraries) > 50
    shared = {
        path.name.lower() for place in (inside, *inside.glob("*.libs")) for path in place.iterdir()
    }
    lacking = {}
    for path in libraries:
        beside = {one.name.lower() for one in path.parent.iterdir()}
        wanted = {
            one.dll.decode().lower() for one in getattr(opened(path), "DIRECTORY_ENTRY_IMPORT", ())
        }
        known = beside if path.parent == folder() else beside | shared
        if lacks := sorted(name for name in wanted - known if not OF_WINDOWS.fullmatch(name)):
            lacking[path.relative_to(folder()).as_posix()] = lacks
    assert lacking == {}


@built
def test_libraries_of_compiler_are_those_of_its_package_and_of_one_version() -> None:
    there = {path.name.lower() for path in (folder() / "_internal").iterdir()}
    assert {*windows_parts.RUNTIME} <= there
    for path, _ in windows_parts.runtime():
        assert (folder() / "_internal" / path.name).read_bytes() == path.read_bytes()


@built
def test_executable_has_its_version_icon_and_manifest() -> None:
    (said,) = (
        {key.decode(): value.decode() for key, value in table.entries.items()}
        for group in opened(Path(BUILT)).FileInfo
        for one in group
        for table in getattr(one, "StringTable", ())
    )
    assert said["OriginalFilename"] == Path(BUILT).name
    assert said["ProductName"] == "vibevoice-asr"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+[0-9a-f]{12}(\.dirty)?)?", said["ProductVersion"])
    (manifest,) = map(settings_of, resources("RT_MANIFEST"))
    assert manifest.items() >= settings_of(windows_parts.MANIFEST.read_bytes()).items()
    icon = windows_parts.ICON.read_bytes()
    images = [*resources("RT_ICON")]
    assert len(images) == struct.unpack_from("<H", icon, 4)[0]
    assert all(image in icon for image in images)


@built
def test_zip_of_the_release_unpacked_elsewhere_transcribes_and_ends_with_its_input(
    tmp_path: Path,
) -> None:
    out, place = tmp_path / "release", tmp_path / "Neue Programme für Gäste"
    out.mkdir()
    release.pack(folder(), out, "0.2.0")
    release.write_checksums(out)
    (packed,) = out.glob("*-x86_64-pc-windows-msvc.zip")
    sums = dict(line.split()[::-1] for line in (out / "SHA256SUMS").read_text("utf-8").splitlines())
    assert sums.keys() == {packed.name, packed.with_suffix(".sbom.cdx.json").name}
    with packed.open("rb") as file:
        assert sums[packed.name] == hashlib.file_digest(file, "sha256").hexdigest()
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(place)
    (executable,) = place.glob(f"*/{Path(BUILT).name}")
    (recording,) = place.rglob(sample().name)
    pipes: dict[str, int] = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    env = service_environment(tmp_path, engine="auto", port=0, exit_with_stdin=True)
    with subprocess.Popen([executable], cwd=tmp_path, env=env, **pipes) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        ready = json.loads(service.stdout.readline())
        files = {"audio": recording.read_bytes()}
        body = web.post(f"{ready['url']}/transcribe", files=files).raise_for_status().json()
        assert {one["speaker"] for one in body["segments"]} == {"Speaker_0", "Speaker_1"}
        workers = psutil.Process(service.pid).children(recursive=True)
        service.stdin.close()
        assert service.wait(PATIENCE_S) == 0
    wait_for_ends(workers)
