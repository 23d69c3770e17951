"""`vibevoice-asr pull voice`, against a server on this machine that does what servers do."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_piper_voice
from command_terminal import Terminal
from service_process import PATIENCE_S, new_file, wait_until
from voice_file_server import VoiceServer

from sidecar import errors
from sidecar.checkpoints import resumable_download
from sidecar.checkpoints.resumable_download import DownloadProgress, HubFile
from sidecar.interfaces.engine_interface import LoadOptions, SynthesisOptions
from sidecar.plugins.conversation.tts.installed_voices import (
    MANIFEST_FILE,
    PulledFile,
    PulledVoice,
    PulledVoices,
)
from sidecar.plugins.conversation.tts.moonshine_tts import MoonshineTts
from sidecar.plugins.conversation.tts.voice_download import pull_voice as download_voice

MODEL, CONFIG = "kokoro/model.onnx", "kokoro/config.json"
FILES = {MODEL: os.urandom(300_000), CONFIG: b"{}", "kokoro/voices/x.kokorovoice": b"x" * 512}
VOICE = PulledVoice("kokoro_x", "en-us", tuple(FILES))
pull_voice = functools.partial(download_voice, retry_pause_s=0.0)


class Told(DownloadProgress):
    def __init__(self) -> None:
        self.total = self.done = 0
        self.notices: list[str] = []

    def begin(self, what: str, total: int) -> None:
        self.total = total

    def advance(self, count: int) -> None:
        self.done += count

    def notice(self, message: str) -> None:
        self.notices.append(message)


@pytest.fixture
def server() -> Iterator[VoiceServer]:
    with VoiceServer(dict(FILES)) as one:
        yield one


def files_below(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != resumable_download.LOCK
    )


@pytest.mark.parametrize(
    ("header", "checked"),
    [("x-goog-hash", "md5"), ("content-md5", "md5"), ("repr-digest", "sha256"), ("", "size")],
)
def test_voice_is_downloaded_and_checked_by_the_servers_checksum_or_else_by_size(
    server: VoiceServer, tmp_path: Path, header: str, checked: str
) -> None:
    server.header, meter = header, Told()
    pulled = pull_voice(tmp_path, server.url, VOICE, meter)
    assert {key: (tmp_path / key).read_bytes() for key in FILES} == FILES
    assert files_below(tmp_path) == sorted([*FILES, MANIFEST_FILE])
    assert {file.checked for file in pulled.files.values()} == {checked}
    assert PulledVoices.read(tmp_path) == pulled
    assert pulled.complete() == (VOICE,)
    assert meter.done == meter.total == sum(map(len, FILES.values()))


def test_second_pull_of_a_voice_requests_nothing_and_a_shared_file_is_fetched_once(
    server: VoiceServer, tmp_path: Path
) -> None:
    pull_voice(tmp_path, server.url, VOICE)
    asked = server.asked
    pull_voice(tmp_path, server.url, VOICE)
    assert server.asked == asked
    other = PulledVoice("kokoro_y", "en-us", (MODEL, "kokoro/voices/y.kokorovoice"))
    server.files[other.files[1]] = b"y"
    assert pull_voice(tmp_path, server.url, other).complete() == (VOICE, other)
    assert server.begins[MODEL] == [0]


def test_file_changed_at_the_server_since_a_broken_pull_is_fetched_from_its_start(
    server: VoiceServer, tmp_path: Path
) -> None:
    server.cut[MODEL] = 200_000
    server.header = ""
    server.gone_after_cut = True
    with pytest.raises(errors.HubUnreachable):
        pull_voice(tmp_path, server.url, VOICE)
    server.gone_after_cut = False
    (begun,) = [name for name in files_below(tmp_path) if name.startswith(MODEL)]
    assert (tmp_path / begun).stat().st_size == 200_000
    server.files[MODEL] = os.urandom(250_000)
    pull_voice(tmp_path, server.url, VOICE)
    assert (tmp_path / MODEL).read_bytes() == server.files[MODEL]
    assert not (tmp_path / begun).exists()


def test_file_changed_during_its_download_is_stored_in_its_new_version_only(
    server: VoiceServer, tmp_path: Path
) -> None:
    server.header = ""
    server.cut[MODEL] = 200_000
    server.swap[MODEL] = newer = os.urandom(len(FILES[MODEL]))
    pull_voice(tmp_path, server.url, VOICE)
    assert (tmp_path / MODEL).read_bytes() == newer


def test_partial_file_of_another_download_whose_name_begins_the_same_is_kept(
    server: VoiceServer, tmp_path: Path
) -> None:
    """One name begins with the other: a model and its configuration."""
    voice = PulledVoice("piper_x", "en-us", ("x.onnx",))
    server.files["x.onnx"] = b"model"
    others = new_file(tmp_path / "x.onnx.json.0123abcd.incomplete", b"{")
    pull_voice(tmp_path, server.url, voice)
    assert others.read_bytes() == b"{"


def test_voice_file_with_wrong_checksum_is_an_error_deleted_and_fetched_by_the_next_pull(
    server: VoiceServer, tmp_path: Path
) -> None:
    server.alter.add(MODEL)
    with pytest.raises(errors.CheckpointDamaged, match=MODEL):
        pull_voice(tmp_path, server.url, VOICE)
    assert MODEL not in PulledVoices.read(tmp_path).files
    assert not [name for name in files_below(tmp_path) if name.startswith(MODEL)]
    server.alter.clear()
    assert pull_voice(tmp_path, server.url, VOICE).complete() == (VOICE,)


def test_damaged_or_missing_voice_file_is_downloaded_again_and_intact_ones_are_not(
    server: VoiceServer, tmp_path: Path
) -> None:
    server.header = ""
    pull_voice(tmp_path, server.url, VOICE)
    (tmp_path / MODEL).write_bytes(bytes(len(FILES[MODEL])))
    (tmp_path / CONFIG).unlink()
    meter = Told()
    assert PulledVoices.read(tmp_path).complete() == ()
    pull_voice(tmp_path, server.url, VOICE, meter)
    assert (tmp_path / MODEL).read_bytes() == FILES[MODEL]
    assert {key: len(begins) for key, begins in server.begins.items()} == {
        MODEL: 2,
        CONFIG: 2,
        "kokoro/voices/x.kokorovoice": 1,
    }
    assert meter.notices == [f"{MODEL} is damaged and is downloaded again."]


def test_invalid_voice_manifest_is_read_as_no_voices(tmp_path: Path) -> None:
    for text in ("", "{}", "[" * 100_000, '{"files":{"a":1},"voices":[]}', "\xff"):
        (tmp_path / MANIFEST_FILE).write_text(text, "utf-8")
        assert PulledVoices.read(tmp_path) == PulledVoices(tmp_path)


def test_size_of_the_largest_voices_counts_shared_files_once_and_missing_voices_not(
    tmp_path: Path,
) -> None:
    sizes = {"shared": 10, "small": 1, "large": 100, "larger": 1000, "gone": 9000}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    pulled = PulledVoices(
        tmp_path, {name: PulledFile(size, "", "size") for name, size in sizes.items()}
    )
    for name in ("large", "small", "larger", "gone"):
        pulled = pulled.with_voice(PulledVoice(name, "en-us", ("shared", name)))
    (tmp_path / "gone").unlink()
    assert [pulled.largest_bytes(count) for count in range(4)] == [0, 1010, 1110, 1111]


@pytest.mark.parametrize(
    ("fault", "value", "error"),
    [
        ("status", 503, errors.HubUnreachable),
        ("status", 404, errors.RepositoryNotFound),
        ("page", b"<html>Sign in", errors.HubUnreachable),
    ],
)
def test_server_that_fails_or_lacks_the_voice_is_an_error_and_leaves_no_file(
    server: VoiceServer, tmp_path: Path, fault: str, value: object, error: type[Exception]
) -> None:
    setattr(server, fault, value)
    with pytest.raises(error) as refused:
        pull_voice(tmp_path, server.url, VOICE)
    assert getattr(refused.value, "hint", "")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("key", ["../x", "a//b", "a/./b", "a\\b"])
def test_voice_file_name_that_is_no_plain_path_below_the_folder_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="no file to be fetched"):
        HubFile(key, 1)


class Shell(Terminal):
    """Where the command is run, and the server of the test."""

    def __init__(self, home: Path, url: str) -> None:
        super().__init__(home, VIBEVOICE_DATA_DIR=str(home), NO_PROXY="127.0.0.1")
        self.folder, self.voices = home / "voices", ("pull", "voice", "--from", url)


def test_pull_voice_resumes_after_a_kill_and_the_voice_speaks(tmp_path: Path) -> None:
    pytest.importorskip("moonshine_voice")
    files = tiny_piper_voice.files(note=200_000 * "-")
    model, config = files
    with VoiceServer(files, stall={model: 150_000}) as server:
        shell = Shell(tmp_path, server.url)
        with shell.start(*shell.voices, tiny_piper_voice.VOICE) as process:
            assert server.stalled.wait(PATIENCE_S)
            begun = shell.folder / model
            wait_until(
                lambda: any(
                    one.stat().st_size for one in begun.parent.glob(f"{begun.name}.????????.*")
                ),
                "some of the file",
            )
            wait_until(lambda: config in PulledVoices.read(shell.folder).files, "the other one")
            process.kill()
        server.stall.clear()
        server.go_on.set()
        run = shell.run(*shell.voices, "tr_TR-dfki-medium", "--language", "tr")
        assert (run.returncode, run.stdout) == (0, f"{shell.folder}\n"), run.stderr
        assert run.stderr == f"vibevoice-asr: {tiny_piper_voice.VOICE} speaks tr-tr (checked).\n"
        assert server.begins[config] == [0]
        first, second = server.begins[model]
        assert first == 0 < second <= 150_000  # what the disk had of it
    listed = shell.run(*shell.voices, "--list", "--language", "tr").stdout.splitlines()
    assert f"tr-tr    {tiny_piper_voice.VOICE}  (here)" in listed
    assert f"tr-tr    {tiny_piper_voice.OTHER}" in listed
    engine = MoonshineTts()
    list(engine.load(LoadOptions(speaks=True, checkpoint=str(shell.folder))))
    (sound,) = engine.say("Merhaba", SynthesisOptions(), lambda: False)
    assert sound.seconds > 0
