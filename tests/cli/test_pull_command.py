"""`vibevoice-asr pull`, against a hub on this machine that does what hubs and networks do."""

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import command_terminal
import pytest
import tiny_streaming
import tiny_vibevoice
from command_terminal import Terminal, interrupt
from model_hub import COMMIT, CONFIG, NEWER, ORIGINAL_CONFIG, SHARDS, Hub, write_checkpoint
from not_tested import missing_extra
from service_process import PATIENCE_S, Server, free_port, run_command, wait_until

from sidecar import engines, errors
from sidecar.checkpoints import checkpoint
from sidecar.checkpoints.checkpoint import (
    PULL_NOTE_FILE,
    cache_folder,
    has_original_layout,
    pulled_commit,
    read_checkpoint,
)
from sidecar.checkpoints.model_repositories import STREAMING_REPOSITORIES, VIBEVOICE_REPOSITORY
from sidecar.checkpoints.resumable_download import FolderDestination
from sidecar.cli import pull
from sidecar.config.settings import Settings

pytest.importorskip("huggingface_hub")

posix = pytest.mark.posix("a terminal of POSIX")


class Shell(Terminal):
    """Where the command is run, and the hub of the test."""

    def __init__(self, home: Path, hub: Hub) -> None:
        home.mkdir()
        patient = json.dumps({"hub_timeout_s": PATIENCE_S})  # a stall is the test's, not the load's
        super().__init__(
            home,
            HF_ENDPOINT=hub.url,
            NO_PROXY="127.0.0.1,localhost",
            VIBEVOICE_TEST_LIMITS=patient,
        )
        (name,) = hub.repos
        self.cache = home / "huggingface" / "hub"
        self.repository = cache_folder(name, self.cache)
        self.folder = self.repository / "snapshots" / COMMIT

    def pull(
        self, *words: object, command: str = "pull", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return self.run(command, *words, *(["--yes"] if command == "pull" else []), **env)

    def left(self, pattern: str) -> list[Path]:
        return sorted(self.repository.glob(pattern))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub({VIBEVOICE_REPOSITORY: write_checkpoint(tmp_path / "published")}) as hub:
        yield hub


@pytest.fixture
def shell(tmp_path: Path, hub: Hub) -> Shell:
    return Shell(tmp_path / "home", hub)


def check_same(folder: Path, published: Path) -> None:
    for path in published.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


def check_one_line(run: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert run.returncode in (66, 69, 1), run.stderr
    assert run.stdout == ""
    command_terminal.check_one_line(run, run.returncode, *parts)


def said_at(commit: str) -> str:
    return f"vibevoice-asr: {VIBEVOICE_REPOSITORY} at commit {commit}\n"


def size_of(hub: Hub, name: str) -> int:
    return (hub.repos[VIBEVOICE_REPOSITORY] / name).stat().st_size


def test_checkpoint_is_downloaded_and_its_folder_and_commit_printed(shell, hub):
    run = shell.pull()
    assert (run.returncode, run.stderr) == (0, said_at(COMMIT))
    assert run.stdout == f"{shell.folder}\n"
    check_same(shell.folder, hub.repos[VIBEVOICE_REPOSITORY])
    assert read_checkpoint(shell.folder).revision == COMMIT
    assert shell.left("blobs/*.incomplete") == []


@pytest.mark.slow
def test_pulled_checkpoint_is_found_by_huggingface_tools(shell, hub):
    assert shell.pull("microsoft/vibevoice-asr-7b", "--revision", "v1").returncode == 0
    asked = dict(hub.sent)
    code = (
        "import sys; from huggingface_hub import hf_hub_download as get\n"
        f"for name in {SHARDS!r}: print(get({VIBEVOICE_REPOSITORY!r}, name, revision='v1'))"
    )
    env = {**shell.env, "HF_HUB_OFFLINE": "1"}
    found = run_command([sys.executable, "-c", code], env=env, text=True, check=True)
    assert found.stdout.split() == [str(shell.folder / name) for name in SHARDS]
    assert hub.sent == asked


def test_model_of_ones_own_in_the_folder_of_a_pull_is_kept_and_the_pull_refused(shell, hub):
    (folder := shell.home / "fine-tuned").mkdir()
    for name in ("config.json", SHARDS[0]):
        (folder / name).write_text("of one's own", "utf-8")
        for _ in range(2):
            run = shell.pull("--to", folder)
            check_one_line(run, f"{name} is of another model, and is kept")
            assert (folder / name).read_text("utf-8") == "of one's own"
        for path in folder.iterdir():
            path.unlink()


def test_a_second_pull_downloads_nothing(shell, hub):
    first = shell.pull()
    sent = dict(hub.sent)
    second = shell.pull()
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert hub.sent == sent


@pytest.mark.slow
def test_only_files_of_the_checkpoint_are_fetched(shell, hub, tmp_path):
    published = hub.repos[VIBEVOICE_REPOSITORY]
    extra = ["pytorch_model.bin", "weights.pt", "model.pkl", "modeling_evil.py", "README.md"]
    for name in extra:
        (published / name).write_bytes(b"not wanted")
    hub.more_names = ["../../evil.json", "sub/config.json", "a\\b.json.exe"]
    assert shell.pull().returncode == 0
    assert not set(extra) & set(hub.sent)
    assert {path.name for path in shell.folder.iterdir()} == set(hub.sent)
    assert list(tmp_path.rglob("evil.json")) == []


def test_broken_download_resumes_where_it_was(shell, hub):
    hub.cut = {SHARDS[0]: 200_000, SHARDS[1]: 300_000}
    run = shell.pull()
    assert (run.returncode, run.stderr) == (0, said_at(COMMIT))
    for name in SHARDS:
        assert hub.sent[name] == size_of(hub, name)
        assert hub.begins[name][1] in (200_000, 300_000)
    check_same(shell.folder, hub.repos[VIBEVOICE_REPOSITORY])


@pytest.mark.slow
def test_cut_download_starts_over_if_the_hub_does_not_support_ranges(shell, hub):
    hub.cut, hub.ranges = {SHARDS[0]: 200_000}, False
    assert shell.pull().returncode == 0
    assert hub.begins[SHARDS[0]] == [0, 0]
    check_same(shell.folder, hub.repos[VIBEVOICE_REPOSITORY])


@pytest.mark.slow_except("2-130")
@pytest.mark.parametrize(
    ("number", "code"), [(2, 130), pytest.param(9, -9, marks=pytest.mark.posix("signals"))]
)
def test_pull_after_an_interruption_resumes_partial_file_and_refetches_no_finished_one(
    number, code, shell, hub
):
    hub.stall = {SHARDS[0]: 200_000}
    with shell.start("pull", "--yes") as process:
        assert hub.stalled.wait(PATIENCE_S)
        wait_until(lambda: shell.left(f"snapshots/*/{SHARDS[1]}"), "the other file is there")
        wait_until(
            lambda: [path for path in shell.left("blobs/*.incomplete") if path.stat().st_size],
            "a part of what came is on the disk: Python's buffer has the rest",
        )
        if number == signal.SIGINT:
            interrupt(process)
            hub.go_on.set()
        else:
            process.kill()
        _, wrong = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert "Traceback" not in wrong
    if number == signal.SIGINT:
        assert "to resume" in wrong
    (partial,) = shell.left("blobs/*.incomplete")
    here = partial.stat().st_size
    assert 0 < here <= 200_000

    hub.stall = {}
    before = hub.sent[SHARDS[0]]
    assert shell.pull().returncode == 0
    assert hub.begins[SHARDS[0]][-1] == here
    assert hub.sent[SHARDS[0]] - before == size_of(hub, SHARDS[0]) - here
    assert hub.sent[SHARDS[1]] == size_of(hub, SHARDS[1])
    check_same(shell.folder, hub.repos[VIBEVOICE_REPOSITORY])


@pytest.mark.slow_except("model")
@pytest.mark.parametrize("name", [SHARDS[1], "tokenizer.json"])
def test_file_with_wrong_checksum_is_named_deleted_and_fetched_whole_by_the_next_pull(
    name, shell, hub
):
    hub.alter = {name}
    check_one_line(shell.pull(), name, "checksum", "deleted")
    digest = hashlib.sha256((hub.repos[VIBEVOICE_REPOSITORY] / name).read_bytes()).hexdigest()
    assert shell.left(f"blobs/{digest}*") == []
    assert shell.left(f"snapshots/*/{name}") == []
    hub.alter = set()
    assert shell.pull().returncode == 0
    assert hub.begins[name] == [0, 0]


@pytest.mark.slow
def test_next_pull_names_a_damaged_file_and_fetches_it_alone(shell, hub):
    assert shell.pull().returncode == 0
    damaged = (shell.folder / SHARDS[0]).resolve()
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    sent = dict(hub.sent)
    run = shell.pull()
    assert run.returncode == 0
    assert f"{SHARDS[0]} is damaged" in run.stderr
    changed = {name for name in hub.sent if hub.sent[name] != sent[name]}
    assert changed == {SHARDS[0]}
    check_same(shell.folder, hub.repos[VIBEVOICE_REPOSITORY])


def test_download_larger_than_the_disk_is_refused_before_it_starts(shell, hub):
    hub.claims = {SHARDS[0]: 10**18}
    check_one_line(shell.pull(), "1000000000.", "GB are free", "--to")
    assert hub.sent == {}


@pytest.mark.slow
def test_pull_to_a_folder_writes_files_and_commit_note_there_and_no_cache(shell, hub):
    run = shell.pull("--to", "models/new")
    folder = shell.home / "models" / "new"
    assert (run.returncode, run.stdout) == (0, f"{folder}\n")
    check_same(folder, hub.repos[VIBEVOICE_REPOSITORY])
    published = {path.name for path in hub.repos[VIBEVOICE_REPOSITORY].iterdir()}
    assert {path.name for path in folder.iterdir()} == {*published, PULL_NOTE_FILE}
    note = {"repository": VIBEVOICE_REPOSITORY, "revision": "main", "commit": COMMIT}
    assert json.loads((folder / PULL_NOTE_FILE).read_text("utf-8")) == note
    assert read_checkpoint(folder).revision == COMMIT
    sent = dict(hub.sent)
    assert shell.pull("--to", folder).returncode == 0
    assert hub.sent == sent
    assert not shell.cache.exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", [(), ("--to", "models")], ids=["cache", "folder"])
def test_later_pull_says_that_main_moved_and_keeps_its_commit_until_a_revision_is_named(
    where, shell, hub
):
    assert shell.pull(*where).returncode == 0
    hub.commit = NEWER
    again = shell.pull(*where)
    assert again.returncode == 0
    assert f"is now at {NEWER}" in again.stderr
    assert again.stderr.endswith(said_at(COMMIT))
    moved = shell.pull(*where, "--revision", "main")
    assert moved.stderr == said_at(NEWER)
    assert read_checkpoint(Path(moved.stdout.strip())).revision == NEWER
    assert NEWER in shell.pull(*where).stderr


@pytest.mark.slow_except("option")
@pytest.mark.parametrize(
    "words", [("vibevoice@" + COMMIT,), ("vibevoice", "--revision", COMMIT)], ids=["@", "option"]
)
def test_named_commit_is_pulled_wherever_main_is(words, shell, hub):
    hub.commit = NEWER
    run = shell.pull(*words)
    assert (run.returncode, run.stdout) == (0, f"{shell.folder}\n")
    assert run.stderr == said_at(COMMIT)
    assert shell.left("refs/*") == [], "no branch was named"


@pytest.mark.slow
@pytest.mark.parametrize("revision", [COMMIT, "v1"])
def test_later_pull_without_revision_keeps_the_one_named_before_and_downloads_nothing(
    revision, shell, hub
):
    assert shell.pull("--revision", revision).returncode == 0
    sent = dict(hub.sent)
    offline = shell.pull(HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, f"{shell.folder}\n")
    hub.commit = NEWER
    again = shell.pull()
    assert again.returncode == 0
    assert again.stderr.endswith(said_at(COMMIT))
    assert hub.sent == sent


@pytest.mark.slow
def test_folder_with_files_of_two_commits_names_no_commit(shell, hub):
    assert shell.pull("--to", "models").returncode == 0
    hub.commit, hub.alter = NEWER, {SHARDS[1]}
    weights = hub.repos[VIBEVOICE_REPOSITORY] / SHARDS[1]
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert shell.pull("--to", "models", "--revision", "main").returncode != 0
    assert not (shell.home / "models" / PULL_NOTE_FILE).exists()
    hub.alter = set()
    assert shell.pull("--to", "models").stderr.endswith(said_at(NEWER))


def test_other_layout_of_weights_replaces_the_one_before_and_a_half_update_is_not_loaded(
    shell, hub, tmp_path
):
    old = write_checkpoint(tmp_path / "old")
    note = {"repository": VIBEVOICE_REPOSITORY, "revision": "main", "commit": COMMIT}
    (old / PULL_NOTE_FILE).write_text(json.dumps(note), "utf-8")
    single = old / "model.safetensors"
    (old / SHARDS[0]).rename(single)
    place = FolderDestination(old, VIBEVOICE_REPOSITORY, NEWER)
    place.begin(lambda name: name == single.name)
    assert not single.exists(), "it would be loaded in place of those to come"
    shutil.copy(hub.repos[VIBEVOICE_REPOSITORY] / SHARDS[0], old)
    with pytest.raises(errors.CheckpointIncomplete, match="two commits"):
        read_checkpoint(old)
    FolderDestination(old, VIBEVOICE_REPOSITORY, NEWER).end_update()
    assert read_checkpoint(old).revision is None
    hub.commit = NEWER
    assert shell.pull("--to", old, "--revision", "main").returncode == 0
    assert read_checkpoint(old).revision == NEWER


def test_files_whose_names_are_no_model_files_are_not_fetched(shell, hub):
    strange = ["requirements (1).txt", ".eslintrc.json", "a+b.json"]
    for name in strange:
        (hub.repos[VIBEVOICE_REPOSITORY] / name).write_text("{}", "utf-8")
    run = shell.pull()
    assert (run.returncode, run.stdout) == (0, f"{shell.folder}\n")
    assert not [name for name in strange if (shell.folder / name).exists()]


def test_offline_pull_of_another_commit_or_repository_is_refused(shell, hub, tmp_path):
    folder = write_checkpoint(tmp_path / "models")
    note = {"repository": VIBEVOICE_REPOSITORY, "revision": "main", "commit": COMMIT}
    (folder / PULL_NOTE_FILE).write_text(json.dumps(note), "utf-8")

    def offline(*words: str) -> int:
        return shell.pull(*words, "--to", folder, HF_HUB_OFFLINE="1").returncode

    assert [offline("vibevoice"), offline(f"vibevoice@{COMMIT}")] == [0, 0]
    assert [offline(f"vibevoice@{NEWER}"), offline("somebody/else")] == [69, 69]


@pytest.mark.slow
def test_commit_missing_at_the_hub_is_an_error_with_a_remedy(shell, hub):
    assert shell.pull("--to", "models").returncode == 0
    gone = {"repository": VIBEVOICE_REPOSITORY, "revision": "main", "commit": "c" * 40}
    (shell.home / "models" / PULL_NOTE_FILE).write_text(json.dumps(gone), "utf-8")
    run = shell.pull("--to", "models")
    assert run.returncode == 1
    assert f"no revision '{'c' * 40}'" in run.stderr
    assert "--revision main" in run.stderr.splitlines()[-1]


def test_json_has_progress_up_to_the_whole_size_and_the_commit_last(shell, hub):
    run = shell.pull("--json")
    *told, last = map(json.loads, run.stdout.splitlines())
    whole = sum(size_of(hub, name) for name in hub.sent)
    done = [(one["bytes_done"], one["bytes_total"]) for one in told if one["event"] == "progress"]
    assert done[0] == (0, whole)
    assert done[-1] == (whole, whole)
    assert done == sorted(done)
    assert {"event": "notice", "message": f"{VIBEVOICE_REPOSITORY} at commit {COMMIT}"} in told
    folder = str(shell.folder)
    assert last == {"event": "done", "name": "vibevoice", "commit": COMMIT, "folder": folder}
    assert (run.returncode, run.stderr) == (0, "")


def test_json_of_a_failed_pull_ends_with_its_error(shell, hub):
    run = shell.pull("nothing", "--json")
    (event,) = map(json.loads, run.stdout.splitlines())
    assert (event["event"], event["error"]["code"]) == ("failed", "repository_not_found")
    command_terminal.check_one_line(run, 1, "'nothing' is not the name")


def test_two_revisions_of_one_model_are_refused(shell, hub):
    run = shell.pull("vibevoice@v1", "--revision", "main")
    command_terminal.check_one_line(run, 2, "once")
    assert hub.tokens == []


@pytest.mark.slow
@pytest.mark.parametrize("note", [b"", b"[]", b'{"commit": "main"}', b'{"commit": 1}', b"\xff"])
def test_invalid_commit_note_of_a_folder_is_ignored_and_replaced_by_the_next_pull(note, shell):
    assert shell.pull("--to", "models").returncode == 0
    (shell.home / "models" / PULL_NOTE_FILE).write_bytes(note)
    assert read_checkpoint(shell.home / "models").revision is None
    assert shell.pull("--to", "models").returncode == 0
    assert read_checkpoint(shell.home / "models").revision == COMMIT


def test_impossible_target_folder_is_one_line_of_error(shell):
    (shell.home / "file").touch()
    check_one_line(shell.pull("--to", "file/models"), "cannot be written")


QWEN = "Qwen/Qwen2.5-7B"
NO_TOKENIZER = ("original layout", "without a tokenizer")


@pytest.fixture
def original(shell, hub, tmp_path):
    """Microsoft's own repository, without a tokenizer, and that of the tokenizer's model."""
    folder = write_checkpoint(tmp_path / "original", ORIGINAL_CONFIG)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    hub.repos["microsoft/VibeVoice-ASR"] = folder
    hub.repos[QWEN] = write_checkpoint(tmp_path / "qwen", {"model_type": "qwen2"})
    (hub.repos[QWEN] / "LICENSE").write_text("Apache", "utf-8")
    for shard in SHARDS:
        (hub.repos[QWEN] / shard).write_bytes(b"weights of Qwen")
    return folder


def test_pull_of_the_original_layout_gets_the_tokenizer_of_its_language_model_and_no_more(
    shell, hub, original
):
    found = shell.pull("microsoft/VibeVoice-ASR")
    assert found.returncode == 0, found.stderr
    for said in (QWEN, "Apache License 2.0", COMMIT):
        assert said in found.stderr
    cached = cache_folder(QWEN, shell.cache)
    (snapshot,) = (cached / "snapshots").iterdir()
    assert {one.name for one in snapshot.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    assert (cached / "refs" / "main").read_text("utf-8") == COMMIT
    hub.sent.clear()
    assert shell.pull("microsoft/VibeVoice-ASR").returncode == 0
    assert not hub.sent, "all of it is there"


def test_pull_of_the_original_layout_into_a_folder_puts_the_tokenizer_there_for_another_machine(
    shell, original, monkeypatch, tmp_path
):
    assert shell.pull("microsoft/VibeVoice-ASR", "--to", "models").returncode == 0
    folder = shell.home / "models"
    assert pulled_commit(folder / "tokenizer", QWEN) == COMMIT
    monkeypatch.setattr(checkpoint, "hugging_face_cache", lambda: tmp_path / "none")
    assert has_original_layout(read_checkpoint(folder).config)
    offline = shell.pull("microsoft/VibeVoice-ASR", "--to", "models", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0
    shutil.rmtree(folder / "tokenizer")
    offline = shell.pull("microsoft/VibeVoice-ASR", "--to", "models", HF_HUB_OFFLINE="1")
    check_one_line(offline, "HF_HUB_OFFLINE", *NO_TOKENIZER)


def test_pull_of_the_original_layout_takes_a_tokenizer_that_is_in_the_folder(shell, hub, original):
    folder = shell.home / "models"
    folder.mkdir()
    shutil.copy(hub.repos[QWEN] / "tokenizer.json", folder)
    assert shell.pull("microsoft/VibeVoice-ASR", "--to", "models").returncode == 0
    assert "tokenizer.json" not in hub.sent
    assert (folder / "tokenizer.json").is_file()


def test_pull_of_the_original_layout_fetches_no_weights_if_its_tokenizer_cannot_be_had(
    shell, hub, original
):
    del hub.repos[QWEN]
    check_one_line(shell.pull("microsoft/VibeVoice-ASR"), QWEN)
    assert not set(SHARDS) & set(hub.sent)


def test_repository_with_pickled_weights_only_is_refused_before_download(shell, hub, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"pickle")
    hub.repos["someone/old"] = tmp_path / "old"
    check_one_line(shell.pull("someone/old"), "pickled", "safetensors")
    assert hub.sent == {}


NO_HUB = "not a model hub"
OTHER_COMMIT = json.dumps({"id": VIBEVOICE_REPOSITORY, "sha": NEWER, "siblings": []}).encode()
WRONG_ANSWERS = {
    "no repository": (["someone/nothing"], {}, ["no someone/nothing", "HF_TOKEN"]),
    "no revision": (["--revision", "v9"], {}, ["no revision 'v9'"]),
    "no name": (["nothing"], {}, ["'nothing' is not the name", "OWNER/NAME"]),
    "no token": ([], {"refuse": (401, "RepoNotFound")}, ["HF_TOKEN"]),
    "no consent": ([], {"refuse": (403, "GatedRepo")}, ["terms", "HF_TOKEN"]),
    "denied": ([], {"refuse": (403, "")}, ["denies", "403"]),
    "busy": ([], {"refuse": (503, "")}, ["answered 503"]),
    "a page": ([], {"body": b"<html>log in</html>"}, [NO_HUB, "HF_ENDPOINT"]),
    "no commit": ([], {"body": b'{"id": "x", "sha": "../..", "siblings": []}'}, [NO_HUB]),
    "another commit": (["--revision", COMMIT], {"body": OTHER_COMMIT}, [NO_HUB]),
    "a name outside": ([], {"more_names": ["..\\evil.json"]}, [NO_HUB]),
}


@pytest.mark.slow_except("no repository", "busy", "a name outside")
@pytest.mark.parametrize(("words", "faults", "parts"), WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_refusal_or_invalid_answer_of_the_hub_is_one_line_of_error(
    words, faults, parts, shell, hub
):
    for name, value in faults.items():
        setattr(hub, name, value)
    check_one_line(shell.pull(*words), *parts)


def test_unreachable_hub_is_one_line_of_error(shell):
    run = shell.pull(HF_ENDPOINT="http://127.0.0.1:1")
    parts = "network", "--to FOLDER", "docs/models.md"
    check_one_line(run, "http://127.0.0.1:1 cannot be reached", *parts)


@pytest.mark.slow
def test_offline_pull_takes_local_files_or_is_refused_and_sends_no_request(shell, hub):
    check_one_line(shell.pull(HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE", "VIBEVOICE_MODEL_PATH")
    assert hub.tokens == []
    online = shell.pull()
    asked = len(hub.tokens)
    offline = shell.pull(HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, online.stdout)
    assert "not checked" in offline.stderr
    assert shell.pull("--revision", "v1", HF_HUB_OFFLINE="1").returncode in (66, 69)
    assert len(hub.tokens) == asked


def test_hub_token_goes_to_the_hub_and_not_to_the_host_of_the_weights(shell, hub):
    assert shell.pull(HF_TOKEN="hf_secret").returncode == 0
    elsewhere = [token for place, token in hub.tokens if place == "elsewhere"]
    assert elsewhere == [None] * len(SHARDS)
    assert {token for place, token in hub.tokens if place != "elsewhere"} == {"Bearer hf_secret"}


@pytest.mark.slow
def test_second_pull_of_a_model_during_the_first_is_refused_and_the_first_completes(shell, hub):
    hub.stall = {SHARDS[0]: 200_000}
    with shell.start("pull", "--yes") as first:
        assert hub.stalled.wait(PATIENCE_S)
        check_one_line(shell.pull(), "is running")
        hub.stall = {}
        hub.go_on.set()
        first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 0
    check_same(shell.folder, hub.repos[VIBEVOICE_REPOSITORY])


@pytest.mark.slow
@posix
def test_terminal_shows_a_bar_with_bytes_rate_and_time_left(shell, hub):
    hub.cut = {SHARDS[0]: 200_000}  # so that it lasts a second
    code, shown, out = shell.shown("pull", "vibevoice", piped=True, COLUMNS="150")
    assert (code, out) == (0, f"{shell.folder}\n")
    for part in (VIBEVOICE_REPOSITORY.encode(), b"1.0/1.0 MB", b"B/s", b"0:00:0"):
        assert part in shown


def typed(shell: Shell, answer: bytes, *words: str, **env: str) -> tuple[int, str]:
    """The exit code of a command at a terminal where ``answer`` is typed, and what was shown."""
    plain = {"TERM": "dumb", "COLUMNS": "300"}
    code, shown, _ = shell.shown(*words, typed=answer, piped=True, **plain, **env)
    return code, shown.decode()


@posix
@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_pull_without_name_asks_before_the_default_is_downloaded_unless_it_is_here(
    answer, code, shell, hub
):
    exit_code, shown = typed(shell, answer, "pull")
    assert exit_code == code, shown
    for part in (VIBEVOICE_REPOSITORY, "16.7 GB", "GB are free", "whisper:small", "[y/N]"):
        assert part in shown
    assert bool(hub.sent) is shell.folder.is_dir() is (code == 0)
    if code == 0:
        assert "[y/N]" not in typed(shell, b"", "pull")[1], "it is here: it is checked"
        again, shown = typed(shell, b"n\n", "pull", "--revision", "main")
        assert (again, "[y/N]" in shown) == (1, True), "a newer one may come"


def test_pull_without_name_and_terminal_downloads_nothing(shell, hub):
    run = shell.run("pull")
    assert (run.returncode, run.stdout) == (2, "")
    assert "pull vibevoice" in run.stderr
    assert "--yes" in run.stderr
    assert not hub.sent


@posix
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vibevoice", (VIBEVOICE_REPOSITORY, "*.safetensors", "VIBEVOICE_MODEL_PATH=")),
        ("whisper:small", ("faster-whisper-small", "model.bin", "VIBEVOICE_MODEL_PATH=")),
    ],
)
def test_pull_without_network_says_how_to_copy_the_files(name, parts, shell):
    for env in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}):
        code, shown = typed(shell, b"", "pull", name, **env)
        assert code == 69
        for part in (f"vibevoice-asr pull {name} --to", *parts):
            assert part in shown


def test_models_are_listed_and_deleted_unless_in_use(shell, tmp_path):
    env = {"VIBEVOICE_PORT": str(free_port()), "VIBEVOICE_DATA_DIR": str(tmp_path / "data")}
    nothing = shell.pull(command="list", **env)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "None" in nothing.stderr
    check_one_line(
        shell.pull("vibevoice", command="rm", **env), "no downloaded model 'vibevoice'", "list"
    )
    assert shell.pull().returncode == 0
    stranger = shell.cache / "models--someone--else" / "snapshots"
    stranger.mkdir(parents=True)
    (line,) = shell.pull(command="list", **env).stdout.splitlines()
    for part in ("vibevoice ", " GB ", COMMIT[:12], str(shell.repository)):
        assert part in line
    asked = shell.pull("vibevoice", command="rm", **env)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    checkpoint = tiny_vibevoice.checkpoint("tiny")
    with Server(tmp_path / "s", engine="vibevoice", model_path=checkpoint, device="cpu") as server:
        port = {**env, "VIBEVOICE_PORT": str(server.port)}
        check_one_line(shell.pull("vibevoice", "--yes", command="rm", **port), "in use", "Stop it")
    assert shell.folder.is_dir()
    gone = shell.pull(VIBEVOICE_REPOSITORY, "--yes", command="rm", **env)
    assert (gone.returncode, gone.stdout) == (0, ""), gone.stderr
    assert not shell.repository.exists()
    assert stranger.is_dir()


@pytest.mark.parametrize("name", sorted(STREAMING_REPOSITORIES))
def test_streaming_model_is_pulled_listed_found_by_doctor_and_deleted(
    name: str, tmp_path: Path
) -> None:
    published = shutil.copytree(tiny_streaming.checkpoint(), tmp_path / "published")
    with Hub({STREAMING_REPOSITORIES[name]: published}) as hub:
        shell = Shell(tmp_path / "home", hub)
        env = {"VIBEVOICE_PORT": str(free_port()), "VIBEVOICE_DEVICE": "cpu"}
        live = {"VIBEVOICE_ENGINE": "moonshine", "VIBEVOICE_LIVE_ENGINE": "vibevoice-streaming"}
        before = shell.pull(command="doctor", **env, **live)
        assert "vibevoice-asr pull vibevoice-streaming" in " ".join(before.stdout.split())
        run = shell.pull(name)
        assert (run.returncode, run.stdout) == (0, f"{shell.folder}\n"), run.stderr
        check_same(shell.folder, published)
        (line,) = shell.pull(command="list", **env).stdout.splitlines()
        assert line.startswith(f"{name} ")
        assert COMMIT[:12] in line
        found = " ".join(shell.pull(command="doctor", **env, **live).stdout.split())
        assert "vibevoice-streaming (vibevoice-streaming): as set" in found
        assert shell.pull(name, "--yes", command="rm", **env).returncode == 0
        assert not shell.repository.exists()


@pytest.mark.parametrize(
    ("allowed", "answer", "fetched"),
    [
        (True, "", True),
        (False, "y", True),
        (False, "Yes", True),
        (False, "", False),
        (False, "n", False),
        (False, None, False),
    ],
)
def test_missing_model_is_downloaded_only_if_the_setting_allows_it_or_yes_is_typed(
    allowed, answer, fetched, tmp_path, monkeypatch, capsys
):
    asked: list[Any] = []
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "missing_packages", lambda spec: [])
    monkeypatch.setattr(pull, "fetch", asked.append)
    monkeypatch.setattr(sys, "stdin", _Keyboard("" if answer is None else f"{answer}\n"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    pull.download_if_missing(Settings(engine="vibevoice", allow_download=allowed))
    assert asked == ([VIBEVOICE_REPOSITORY] if fetched else [])
    said = capsys.readouterr()
    assert said.out == ""
    assert ("16.7 GB" in said.err) is (allowed or answer is not None)


@pytest.mark.slow
@pytest.mark.skipif(
    bool(engines.missing_packages(engines.engine_spec("vibevoice"))), reason="not installed"
)
def test_serve_without_checkpoint_names_pull_or_with_allow_download_fails_on_wrong_checksum(
    shell, hub
):
    words = ("--engine", "vibevoice", "--port", "0")
    run = shell.pull(*words, command="serve")
    assert run.returncode != 0
    assert "vibevoice-asr pull vibevoice" in run.stderr.splitlines()[-1]
    assert hub.tokens == []
    hub.alter = {SHARDS[0]}
    run = shell.pull(*words, "--allow-download", command="serve")
    assert run.returncode != 0
    assert "16.7 GB" in run.stderr
    assert "checksum" in run.stderr.splitlines()[-1]


def test_missing_checkpoint_of_a_set_model_path_is_not_downloaded_even_if_allowed(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(engines, "missing_packages", lambda spec: [])
    monkeypatch.setattr(pull, "fetch", lambda repo: pytest.fail("it downloads"))
    pull.download_if_missing(Settings(engine="vibevoice", allow_download=True, model_path=tmp_path))


def test_pull_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pull, "find_spec", lambda name: None)
    with pytest.raises(errors.EngineUnavailable) as caught:
        pull.fetch(VIBEVOICE_REPOSITORY)
    assert "pip install" in caught.value.hint


class _Keyboard(io.StringIO):
    """Somebody who types a line, or nobody."""

    def isatty(self) -> bool:
        return bool(self.getvalue())


def test_folder_of_model_path_is_listed_as_not_pulled(shell, tmp_path):
    env = {"VIBEVOICE_PORT": str(free_port()), "VIBEVOICE_DATA_DIR": str(tmp_path / "data")}
    own = tmp_path / "tuned"
    own.mkdir()
    (own / "config.json").write_text("{}", "utf-8")
    (line,) = shell.pull(command="list", **env, VIBEVOICE_MODEL_PATH=str(own)).stdout.splitlines()
    for part in ("model_path ", " GB ", "not pulled", str(own)):
        assert part in line


@pytest.mark.skipif(find_spec("torch") is None, reason=missing_extra("torch"))
def test_doctor_reports_whisper_and_voxtral_without_weights_as_not_usable(shell):
    shown = shell.pull(command="doctor", VIBEVOICE_PORT=str(free_port())).stdout
    for title in ("whisper: Whisper (faster-whisper)", "voxtral: Voxtral Realtime (live only)"):
        assert f"{title}; not usable: There is no" in " ".join(shown.split())
