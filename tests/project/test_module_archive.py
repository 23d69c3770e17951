"""The module archive (`make module`), as a host takes it, and the calls of that host.

The host is Trispr Flow 0.8: it checks manifest, checksum and index, starts whisper.cpp's server by
its command line, waits for `GET /`, and posts a form that it writes by hand to `/inference`.
"""

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import pytest
from not_tested import MAKE, missing
from service_process import Server, free_port, new_file

from sidecar.cli.open import sample

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

import module  # noqa: E402

BUILT = os.environ.get("VIBEVOICE_EXECUTABLE")
NAME, VERSION = "vibevoice_asr", "0.2.0"
URL = "https://example.org/modules"
BOUNDARY = "trispr_boundary_8f3a2b"
SCRIPT = "from sidecar.cli import main\n\nmain()\n"


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A folder like a build, with a link inside, as PyInstaller makes some on macOS."""
    folder = tmp_path / "dist" / "vibevoice-asr"
    (folder / "licences").mkdir(parents=True)
    (folder / "licences" / "LICENSE").write_text("MIT", "utf-8")
    (folder / "_internal").mkdir()
    (folder / "_internal" / "libone.so").write_bytes(b"one")
    (folder / "_internal" / "libone.so.1").symlink_to("libone.so")
    new_file(folder / "vibevoice-asr", "#!/bin/sh\n", 0o755)
    return folder


def unpacked(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack as the host does, which refuses paths out of the folder; return the manifest."""
    with zipfile.ZipFile(archive) as packed:
        for entry in packed.infolist():
            path = PurePosixPath(entry.filename)
            assert not path.is_absolute()
            assert ".." not in path.parts
            assert entry.external_attr >> 28 == 0o10, f"{path} is no plain file"
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            new_file(target, packed.read(entry), entry.external_attr >> 16 & 0o777)
    manifest: dict[str, Any] = json.loads((folder / module.MANIFEST).read_text("utf-8"))
    return manifest


@pytest.mark.posix("permissions of POSIX")
def test_module_archive_has_manifest_for_host_and_executable_program_and_no_link(
    build: Path, tmp_path: Path
) -> None:
    archive = module.write_archive(tmp_path, build, NAME, VERSION)
    manifest = unpacked(archive, tmp_path / "installed")
    assert archive.name == f"{NAME}-{VERSION}.zip"
    assert (manifest["schema_version"], manifest["kind"]) == (1, "sidecar")
    assert (manifest["id"], manifest["version"]) == (NAME, VERSION)
    assert manifest["executable_hooks"] == []
    program = tmp_path / "installed" / manifest["entrypoint"]
    assert program.name == "whisper-server"
    assert program.stat().st_mode & 0o777 == 0o755
    for asset in manifest["required_assets"]:
        there = tmp_path / "installed" / asset["path"]
        assert there.is_dir() if asset["kind"] == "directory" else there.is_file()
    assert (tmp_path / "installed/bin/_internal/libone.so.1").read_bytes() == b"one"


def test_index_names_archive_with_checksum_and_size(build: Path, tmp_path: Path) -> None:
    archive = module.write_archive(tmp_path, build, NAME, VERSION)
    module.write_index(archive, NAME, VERSION, f"{URL}/")
    index = json.loads((tmp_path / module.INDEX).read_text("utf-8"))
    (entry,) = index["modules"]
    assert index["schema_version"] == 1
    assert entry["asset_url"] == f"{URL}/{archive.name}"
    assert entry["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert entry["size"] == archive.stat().st_size
    assert (tmp_path / f"{NAME}-{VERSION}.sha256").read_text("utf-8").startswith(entry["sha256"])


def test_same_build_with_other_file_times_makes_same_archive(build: Path, tmp_path: Path) -> None:
    first = module.write_archive(tmp_path, build, NAME, VERSION).read_bytes()
    os.utime(build / "vibevoice-asr", (1_700_000_000, 1_700_000_000))
    assert module.write_archive(tmp_path, build, NAME, VERSION).read_bytes() == first


def test_folder_that_is_no_build_is_refused_and_makes_no_archive(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no build"):
        module.write_archive(tmp_path, tmp_path, NAME, VERSION)
    assert not [*tmp_path.iterdir()]


def form_of_host(recording: bytes, language: str) -> bytes:
    """The body that the host writes: a WAV file, the format, the language."""
    head = (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="audio.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    texts = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("response_format", "json"), ("language", language))
    )
    return head.encode() + recording + b"\r\n" + f"{texts}--{BOUNDARY}--\r\n".encode()


def ask(server: Server, language: str) -> httpx.Response:
    return server.client.post(
        "/inference",
        content=form_of_host(sample().read_bytes(), language),
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )


def words_of_host(port: int) -> list[str]:
    return ["-m", "ggml-large-v3-turbo.bin", "--host", "127.0.0.1", "--port", str(port), "-t", "4"]


@pytest.mark.parametrize("language", ["en", "auto"])
def test_script_named_whisper_server_takes_whisper_cpps_options_and_answers_its_form(
    tmp_path: Path, language: str
) -> None:
    port = free_port()
    program = new_file(tmp_path / "whisper-server", SCRIPT)
    command = [sys.executable, str(program), *words_of_host(port)]
    with Server(tmp_path / "home", command, port=port, engine="scripted") as server:
        assert server.client.get("/").status_code == 200
        answer = ask(server, language)
        assert answer.status_code == 200
        assert answer.json()["text"].strip()


@pytest.mark.skipif(not BUILT, reason=missing("an executable", "exe", MAKE))
def test_executable_in_module_transcribes_english_for_host_and_refuses_german(
    tmp_path: Path,
) -> None:
    assert BUILT is not None
    archive = module.write_archive(tmp_path, Path(BUILT).resolve().parent, NAME, VERSION)
    manifest = unpacked(archive, tmp_path / "installed")
    port = free_port()
    command = [str(tmp_path / "installed" / manifest["entrypoint"]), *words_of_host(port)]
    with Server(tmp_path / "home", command, port=port, engine="moonshine", fresh=True) as server:
        assert "Do you hear me?" in ask(server, "en").json()["text"]
        refused = ask(server, "de")
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "language_unsupported"
