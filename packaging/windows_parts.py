"""What the executable has on Windows alone: a version, an icon and a manifest in its file, and the
libraries of Microsoft's compiler, which a bare Windows lacks."""

from importlib import metadata
from pathlib import Path
from typing import Any

ICON = Path(__file__).with_name("icon.ico")
MANIFEST = Path(__file__).with_name("executable.manifest")
"""Rights of who starts it, paths of more than 260 characters, and UTF-8 where C libraries take
names of files."""
RUNTIME_PACKAGE = "msvc-runtime"
RUNTIME = ("msvcp140.dll", "msvcp140_1.dll", "vcruntime140.dll", "vcruntime140_1.dll")
"""Libraries of that package which extensions and their libraries ask for."""
ENGLISH, UNICODE = 1033, 1200


def runtime() -> list[tuple[Path, str]]:
    """Return the libraries, each with its folder inside the build.

    Raises:
        FileNotFoundError: the package lacks one.
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    files = metadata.files(RUNTIME_PACKAGE) or ()
    found = {file.name: Path(str(file.locate())) for file in files if file.name in RUNTIME}
    if missing := [name for name in RUNTIME if name not in found]:
        raise FileNotFoundError(f"{RUNTIME_PACKAGE} has no {', '.join(missing)}")
    return [(found[name].resolve(), ".") for name in RUNTIME]


def version_resource(name: str, version: str) -> Any:
    """Return what Explorer and the task manager show of an executable."""
    from PyInstaller.utils.win32 import versioninfo

    numbers = (*map(int, version.partition("+")[0].split(".")), 0)
    texts = {
        "CompanyName": "The vibevoice-asr authors",
        "FileDescription": "vibevoice-asr: speech to text with speakers",
        "FileVersion": version,
        "InternalName": name,
        "LegalCopyright": "MIT; of its parts: the folder licences",
        "OriginalFilename": f"{name}.exe",
        "ProductName": "vibevoice-asr",
        "ProductVersion": version,
    }
    table = versioninfo.StringTable(
        f"{ENGLISH:04x}{UNICODE:04x}", [versioninfo.StringStruct(*one) for one in texts.items()]
    )
    return versioninfo.VSVersionInfo(
        ffi=versioninfo.FixedFileInfo(filevers=numbers, prodvers=numbers),
        kids=[
            versioninfo.StringFileInfo([table]),
            versioninfo.VarFileInfo([versioninfo.VarStruct("Translation", [ENGLISH, UNICODE])]),
        ],
    )
