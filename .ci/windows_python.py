"""CPython for Windows under Wine, in a folder, with the base and what its tests need.

`windows_python.py FOLDER` sets it up; `windows_python.py FOLDER WORD…` runs that Python with the
words, or a program whose name ends with `.exe`, and ends with its exit code. Figures there are
none of Windows: Wine stands in for it.

A Go module carries CPython, and `go` checks what it downloads; uv takes the wheels that Windows
would. Wine 8 lacks two functions: numpy 1.26 does without one, and a DLL of ours has the other.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from standalone_python import fetch, unpack

VERSION = "v0.0.0-3.11.11-20241219-1"
SUM = "h1:yVXFTxa6cvhLC6TwkDEHmNaiWlDyaFEGiXd1DQdoeOU="
EXTRAS = ("build", "test")
OVERRIDES = "numpy<2\n"
"""numpy 2 asks for `crealf` of Windows' C library, which Wine 8 lacks."""
RANDOM_DLL = """
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) {
  return SystemFunction036(data, (ULONG)size);
}
"""
"""`bcryptprimitives.dll`, of which every extension in Rust takes its random numbers."""
MISSING = {
    "go": "go is missing, which fetches CPython for Windows (sudo apt-get install golang-go).",
    "wine": "wine is missing, which runs it (sudo apt-get install wine).",
    "x86_64-w64-mingw32-gcc": "a C compiler for Windows is missing, for a DLL that Wine lacks"
    " (sudo apt-get install gcc-mingw-w64-x86-64).",
}


def main() -> int | str | None:
    """Set up, or run; return the exit code, or what is missing."""
    folder, words = Path(sys.argv[1]).absolute(), sys.argv[2:]
    return run(folder, words) if words else set_up(folder, Path(__file__).resolve().parents[1])


def set_up(folder: Path, root: Path) -> str | None:
    """Make the folder, once for each version and pyproject.toml; return what is missing."""
    sources = Path(__file__), root / "pyproject.toml"
    wanted = "\n".join([str(root), *(file.read_text("utf-8") for file in sources)])
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return None
    if missing := [text for name, text in MISSING.items() if shutil.which(name) is None]:
        return "\n".join(missing)
    print(
        f"Fetching Python for Windows into {folder} and installing '.[build,test]', once: a minute"
    )
    shutil.rmtree(folder, ignore_errors=True)
    module = fetch(VERSION, SUM)
    if isinstance(module, str):
        return module
    unpack(module / "windows-amd64", folder / "python")
    (folder / "overrides.txt").write_text(OVERRIDES, "utf-8")
    (folder / "random.c").write_text(RANDOM_DLL, "utf-8")
    packages = folder / "python/Lib/site-packages"
    system = folder / "wine/drive_c/windows/system32"
    for step in (
        ["wine", "wineboot", "--init"],
        ["wine", "winecfg", "-v", "win10"],  # it is Windows 7 otherwise
        [
            *("x86_64-w64-mingw32-gcc", "-shared", folder / "random.c", "-ladvapi32"),
            *("-o", system / "bcryptprimitives.dll"),
        ],
        [sys.executable, "-m", "venv", folder / "uv"],
        [folder / "uv/bin/python", "-m", "pip", "install", "--quiet", "uv"],
        [
            *(folder / "uv/bin/uv", "pip", "install", "--quiet", "--target", packages),
            *("--python-platform", "x86_64-pc-windows-msvc", "--python-version", "3.11"),
            *("--only-binary", ":all:", "--override", folder / "overrides.txt"),
            *("--editable", f"{root}[{','.join(EXTRAS)}]", "pip"),
        ],
    ):
        done = subprocess.run(
            step, env=environment(folder), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            said = f"{done.stdout}{done.stderr}".strip()
            return f"{said}\nPython for Windows was not set up: {' '.join(map(str, step))}"
    for finder in packages.glob("__editable___*_finder.py"):  # its paths are of Linux
        text = finder.read_text("utf-8")
        finder.write_text(text.replace(f"'{root}", f"'Z:{root}"), "utf-8")
    stamp.write_text(wanted, "utf-8")
    return None


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of programs in Wine: without its own messages, and with the prefix
    of `WINEPREFIX` where somebody has another."""
    prefix = os.environ.get("WINEPREFIX", str(folder / "wine"))
    found = {**os.environ, "WINEPREFIX": prefix, "WINEARCH": "win64", "WINEDEBUG": "-all"}
    found["VIBEVOICE_TEST_RUNNER"] = str(os.getpid())  # with it ends what tests start beside Wine
    if path := os.environ.get("PYTHONPATH"):
        found["PYTHONPATH"] = ";".join(f"Z:{one}" for one in path.split(":"))
    return found


def run(folder: Path, words: list[str]) -> int:
    """Run Python with the words, or the program that they name. Python for Windows refuses files of
    Linux as standard streams, so it gets pipes."""
    own = [] if words[0].endswith(".exe") else [folder / "python/python.exe"]
    program = ["wine", *own, *words]
    env, end_all = environment(folder), ["wineserver", "-k"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with subprocess.Popen(
        program,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        try:
            while data := process.stdout.read1():
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        finally:
            if process.poll() is None and sys.exc_info()[0]:  # interrupted
                subprocess.run(end_all, env=env, check=False)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
