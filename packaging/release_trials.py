"""Tries out what `make release` made: ``python packaging/release_trials.py OUT [PATTERN…]``.

Each file is installed or unpacked in an empty place, as a stranger would, and does its work there:
a service transcribes the two speakers of its own sample, ends when its host does, and leaves no
process behind when it is killed; a client transcribes the sample by a service of the wheel. Prints
a row of a table for each file. Needs the packages psutil and uv, and cargo and npm for the clients.
The files for Windows: with Python for Windows, which may run under Wine.
"""

import contextlib
import fnmatch
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from triple import target_triple

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120.0
"""For a service to start, and for processes to end: far more than a slow machine takes."""
HOST = ("--port=0", "--generate-token", "--exit-with-stdin", "--log-level=warning")
EXE = ".exe" if sys.platform == "win32" else ""
SPEAKERS, SAYS = {"Speaker_0", "Speaker_1"}, "Do you hear me?"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
FORM_TYPE = {"Content-Type": "multipart/form-data; boundary=trial"}
FORM_HEAD = (
    '--trial\r\nContent-Disposition: form-data; name="response_format"\r\n\r\njson\r\n'
    '--trial\r\nContent-Disposition: form-data; name="file"; filename="audio.wav"\r\n\r\n'
)
FORM_END = "\r\n--trial--\r\n"
PYTHON_CLIENT = """
import sys
from vibevoice_asr_client import Client
with Client(sys.argv[1], token=sys.argv[2]) as client:
    for segment in client.transcribe(sys.argv[3]).segments:
        print(segment.speaker, segment.text)
"""
JAVASCRIPT_CLIENT = """
import { readFileSync } from "node:fs";
import { VibevoiceClient } from "vibevoice-asr-client";
const [url, token, path] = process.argv.slice(2);
const client = new VibevoiceClient({ url, token });
const { segments } = await client.transcribe(new Blob([readFileSync(path)]));
for (const { speaker, text } of segments) console.log(speaker, text);
"""
TAURI_BINDINGS = """
import * as bindings from "tauri-plugin-vibevoice-asr-api";
console.log(Object.keys(bindings).join(" "));
"""


def main() -> int:
    """Try the files whose names match one of the patterns, all without; 1 if one did not do."""
    out, patterns = Path(sys.argv[1]).resolve(), sys.argv[2:] or ["*"]
    failed = False
    for file in sorted(out.iterdir()):
        kind = next((kind for kind in TRIALS if fnmatch.fnmatch(file.name, kind)), None)
        if kind is None or not any(fnmatch.fnmatch(file.name, one) for one in patterns):
            continue
        print(f"Trying {file.name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="vibevoice trial ") as place:
            try:
                said = TRIALS[kind](file, Path(place))
            except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
                said, failed = f"FAILED: {error!r}", True
        print(f"| `{file.name}` | {file.stat().st_size:,} | {said} |", flush=True)
    return int(failed)


def try_wheel(wheel: Path, place: Path) -> str:
    """By the newest and by the lowest versions that it allows of what it depends on."""
    pinned = place / "lowest.txt"
    lowest = ("--quiet", "--resolution", "lowest-direct", "--python-version", "3.11", "-o", pinned)
    _run("uv", "pip", "compile", *lowest, ROOT / "pyproject.toml")
    for versions in (["--upgrade"], ["--constraint", pinned]):
        programs = installed(place / "environment", *versions, wheel)
        _run(programs / f"vvv{EXE}", "--help")
        try_service(programs / f"vibevoice-asr{EXE}", place)
    return "service, with the newest and the lowest versions of what it needs"


def try_archive(archive: Path, place: Path) -> str:
    """Unpacked, in a folder with a space in its name."""
    _unpack(archive, place)
    (folder,) = (one for one in place.iterdir() if one.is_dir())
    name = folder.name.removesuffix(f"-{target_triple()}")
    return try_service(folder / f"{name}{EXE}", place)


def try_module(archive: Path, place: Path) -> str:
    """Started and asked as hosts of such modules do, by the words of whisper.cpp's server."""
    _unpack(archive, place)
    entry = place / json.loads((place / "trispr-module.json").read_text("utf-8"))["entrypoint"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    words = [entry, "-m", "ggml-base.bin", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}  # ours is the table
    with subprocess.Popen(words, **quiet, env=_private(place)) as service:
        try:
            _until_answered(url)
            form = FORM_HEAD.encode() + sample(entry, place).read_bytes() + FORM_END.encode()
            said = asked(urllib.request.Request(f"{url}/inference", form, FORM_TYPE))["text"]
            assert SAYS in said, said
        finally:
            kill(service)
    return "answers a host of modules, a kill"


def try_service(program: Path, place: Path) -> str:
    """Start it as a host does, transcribe, end it by its standard input, and then by a kill."""
    with started([program, *HOST], place) as (service, ready):
        body = json.dumps({"audio_path": str(sample(program, place))}).encode()
        kind = {"Content-Type": "application/json", "Authorization": f"Bearer {ready['token']}"}
        answer = asked(urllib.request.Request(f"{ready['url']}/transcribe", body, kind))
        _check("\n".join(f"{one['speaker']} {one['text']}" for one in answer["segments"]))
        assert service.stdin is not None
        service.stdin.close()
        assert (code := service.wait(PATIENCE_S)) == 0, f"exit code {code}"
    with started([program, *HOST], place) as (service, _):
        kill(service)
    return "service: two speakers, a stop, a kill"


def try_models(wheel: Path, place: Path) -> str:
    """In place of moonshine-voice, from which its files are."""
    (service,) = wheel.parent.glob("vibevoice_asr-[0-9]*.whl")
    programs = installed(place / "environment", service)
    python = ("--quiet", "--python", programs / f"python{EXE}")
    _run("uv", "pip", "uninstall", *python, "moonshine-voice")  # the files of both are in one place
    _run("uv", "pip", "install", *python, "--no-deps", wheel)
    return try_service(programs / f"vibevoice-asr{EXE}", place)


def try_python_client(wheel: Path, place: Path) -> str:
    """In an environment without the service."""
    programs = installed(place / "environment", wheel)
    with wheel_service(wheel.parent, place) as (words, _):
        _check(_run(programs / f"python{EXE}", "-c", PYTHON_CLIENT, *words))
    return "transcribes by a service"


def try_javascript_client(package: Path, place: Path) -> str:
    """In a folder with nothing else."""
    _npm_install(package, place)
    (place / "try.mjs").write_text(JAVASCRIPT_CLIENT, "utf-8")
    with wheel_service(package.parent, place) as (words, _):
        _check(_run("node", "try.mjs", *words, folder=place))
    return "transcribes by a service"


def try_tauri_bindings(package: Path, place: Path) -> str:
    """Imported; what they do needs a window (make test-tauri)."""
    _npm_install(package, place)
    (place / "try.mjs").write_text(TAURI_BINDINGS, "utf-8")
    assert "transcribe" in _run("node", "try.mjs", folder=place)
    return "imported; in a window: `make test-tauri`"


def try_crate(crate: Path, place: Path) -> str:
    """Its example, compiled from the package, starts the service of the wheel."""
    _unpack(crate, place)
    manifest = place / crate.stem / "Cargo.toml"
    with wheel_service(crate.parent, place) as (words, program):
        run = ("--quiet", "--manifest-path", manifest, "--example", "transcribe", "--")
        _check(_run("cargo", "run", *run, words[2], program, env=_private(place)))
    return "its example starts a service, and transcribes"


def try_tauri_crate(crate: Path, place: Path) -> str:
    """Compiled with the other crate's package, where WebKitGTK is installed."""
    _unpack(crate, place)
    (other,) = crate.parent.glob("vibevoice-asr-[0-9]*.crate")
    _unpack(other, place)
    found = subprocess.run(["pkg-config", "--exists", "webkit2gtk-4.1"], check=False)
    if found.returncode:
        return "unpacked; not compiled (libwebkit2gtk-4.1-dev is missing)"
    patch = f"patch.crates-io.vibevoice-asr.path={str(place / other.stem)!r}"
    manifest = place / crate.stem / "Cargo.toml"
    _run("cargo", "check", "--quiet", "--config", patch, "--manifest-path", manifest)
    return "compiled; in a window: `make test-tauri`"


def try_ggml(wheel: Path, place: Path) -> str:
    """Beside the service, which finds the engine; its tests run with `make test`."""
    (service,) = wheel.parent.glob("vibevoice_asr-[0-9]*.whl")
    programs = installed(place / "environment", service, wheel)
    said = _run(programs / f"vibevoice-asr{EXE}", "serve", "--help", env=_private(place))
    assert "ggml" in said, said
    return "found by the service"


TRIALS: dict[str, Callable[[Path, Path], str]] = {
    "vibevoice_asr-*.whl": try_wheel,
    "vibevoice_asr_client-*.whl": try_python_client,
    "vibevoice_asr_embedded_models-*.whl": try_models,
    "vibevoice_asr_ggml-*.whl": try_ggml,
    f"vibevoice_asr-*-module-{target_triple()}.zip": try_module,
    f"vibevoice-asr-*-{target_triple()}.zip": try_archive,
    f"vibevoice-asr-*-{target_triple()}.tar.xz": try_archive,
    "vibevoice-asr-client-*.tgz": try_javascript_client,
    "tauri-plugin-vibevoice-asr-api-*.tgz": try_tauri_bindings,
    "tauri-plugin-vibevoice-asr-*.crate": try_tauri_crate,
    "vibevoice-asr-*.crate": try_crate,
}
"""The first pattern of a file's name decides how it is tried."""


@contextmanager
def started(
    words: list[str | Path], place: Path
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """A service that its host has just started, and what its first line says."""
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_private(place), cwd=place
    ) as service:
        try:
            assert service.stdout is not None
            ready = json.loads(service.stdout.readline() or "{}")
            assert ready.get("event") == "ready", ready
            yield service, ready
        finally:
            service.kill()


@contextmanager
def wheel_service(out: Path, place: Path) -> Iterator[tuple[list[str], Path]]:
    """A service of the release's wheel: what a client needs (its address, a token, the path of the
    sample), and its program."""
    (wheel,) = out.glob("vibevoice_asr-[0-9]*.whl")
    program = installed(place / "service", wheel) / f"vibevoice-asr{EXE}"
    with started([program, *HOST], place) as (_, ready):
        yield [ready["url"], ready["token"], str(sample(program, place))], program


def sample(program: Path, place: Path) -> Path:
    """The sample of two speakers, as the program saves it."""
    path = place / "talk.wav"
    if not path.exists():
        _run(program, "demo", "--save", path, env=_private(place))
    return path


def asked(request: urllib.request.Request) -> dict[str, Any]:
    """The answer in JSON of a service on this machine."""
    with DIRECT.open(request, timeout=PATIENCE_S) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def kill(service: subprocess.Popen[bytes]) -> None:
    """Kill it. What it started has to end, too."""
    processes = psutil.Process(service.pid).children(recursive=True)
    service.kill()
    _, alive = psutil.wait_procs(processes, PATIENCE_S)
    assert not alive, f"left behind: {alive}"


def installed(environment: Path, *words: str | Path) -> Path:
    """Install wheels in an environment, made anew; return the folder of its programs."""
    venv.create(environment, clear=True)
    programs = environment / ("Scripts" if EXE else "bin")
    _run("uv", "pip", "install", "--quiet", "--python", programs / f"python{EXE}", *words)
    return programs


def _until_answered(url: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError), DIRECT.open(url, timeout=1):
            return
        time.sleep(0.2)
    raise TimeoutError(f"{url} does not answer")


def _check(said: str) -> None:
    assert SAYS in said, said
    assert all(speaker in said for speaker in SPEAKERS), said


def _npm_install(package: Path, place: Path) -> None:
    (place / "package.json").write_text('{"private": true, "type": "module"}', "utf-8")
    _run("npm", "install", "--silent", "--no-audit", "--no-fund", package, folder=place)


def _unpack(archive: Path, place: Path) -> None:
    if archive.suffix != ".zip":
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        return
    with zipfile.ZipFile(archive) as packed_zip:
        for entry in packed_zip.infolist():  # zipfile drops the modes
            path = Path(packed_zip.extract(entry, place))
            if mode := entry.external_attr >> 16 & 0o777:
                path.chmod(mode)


def _private(place: Path) -> dict[str, str]:
    """The environment without settings of this user's services, and with folders of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("VIBEVOICE_")}
    return {**own, "VIBEVOICE_DATA_DIR": str(place / "data")}


def _run(*words: str | Path, folder: Path | None = None, env: dict[str, str] | None = None) -> str:
    program = shutil.which(
        words[0], path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    done = subprocess.run(
        [program or words[0], *words[1:]],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, f"{words[0]}: exit code {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
