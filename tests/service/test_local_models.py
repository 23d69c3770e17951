"""Models of this machine, without a service around them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import psutil
import pytest
import tiny_whisper
from model_hub import COMMIT, SHARDS, Hub, write_checkpoint
from service_process import PATIENCE_S, popen, runs, wait_until
from vibevoice_asr_client.flows import NOTHING_DONE

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.checkpoints.checkpoint import cache_folder, hugging_face_cache
from sidecar.checkpoints.installed_checkpoints import installed_models
from sidecar.checkpoints.model_repositories import VIBEVOICE_REPOSITORY, WHISPER_MODELS
from sidecar.cli.output import INTERRUPTED
from sidecar.service.local_models import LocalModels, ModelDownload

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, from which downloads go to a cache of their own."""
    with Hub({VIBEVOICE_REPOSITORY: write_checkpoint(tmp_path / "published")}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub" / "hub"))
        yield hub


def test_model_in_use_by_an_engine_cannot_be_deleted_until_it_is_released(hub: Hub) -> None:
    repository = cache_folder(WHISPER_MODELS["small"].repository, hugging_face_cache())
    folder = tiny_whisper.write_like(repository / "snapshots" / COMMIT)
    in_use = [folder]
    models = LocalModels(lambda: in_use)
    with pytest.raises(errors.ModelInUse):
        asyncio.run(models.delete(ANONYMOUS, "whisper:small"))
    in_use.clear()
    asyncio.run(models.delete(ANONYMOUS, "whisper:small"))
    assert not repository.exists()


@pytest.mark.parametrize(
    "wrong", [pytest.param("link", marks=pytest.mark.posix("symbolic links")), "locks"]
)
def test_model_that_cannot_be_deleted_stays_whole(hub: Hub, wrong: str, tmp_path: Path) -> None:
    repository = cache_folder(WHISPER_MODELS["small"].repository, hugging_face_cache())
    tiny_whisper.write_like(repository / "snapshots" / COMMIT)
    if wrong == "link":
        repository.rename(tmp_path / "elsewhere")
        repository.symlink_to(tmp_path / "elsewhere")
    else:
        (repository.parent / ".locks").write_bytes(b"")
    with pytest.raises(errors.CheckpointUnwritable):
        asyncio.run(LocalModels(list).delete(ANONYMOUS, "whisper:small"))
    (model,) = installed_models()
    assert model.commit == COMMIT


def test_deletion_that_was_interrupted_is_completed_by_the_next(hub: Hub) -> None:
    repository = cache_folder(WHISPER_MODELS["small"].repository, hugging_face_cache())
    tiny_whisper.write_like(repository / "snapshots" / COMMIT)
    (repository.parent / f".deleted-{repository.name}" / "blobs").mkdir(parents=True)
    asyncio.run(LocalModels(list).delete(ANONYMOUS, "whisper:small"))
    assert [one.name for one in repository.parent.iterdir()] == [".locks"]


@pytest.mark.posix("pipes of POSIX")
def test_model_list_and_deletion_on_a_hanging_disk_raise_an_error_that_claims_nothing_undone(
    hub: Hub,
) -> None:
    assert errors.StorageUnreachable.code not in NOTHING_DONE  # the deletion goes on
    silent = cache_folder(VIBEVOICE_REPOSITORY, hugging_face_cache()) / "refs"
    silent.mkdir(parents=True)
    os.mkfifo(silent / "main")

    async def ask() -> None:
        models = LocalModels(list, patience_s=0.05)
        for _ in range(3):  # more than there are threads
            with pytest.raises(errors.StorageUnreachable):
                await models.all()
        with pytest.raises(errors.StorageUnreachable):
            await models.delete(ANONYMOUS, "vibevoice")
        os.close(await asyncio.to_thread(os.open, silent / "main", os.O_WRONLY))

    asyncio.run(ask())


def test_download_process_gets_the_hub_token_but_not_the_service_token(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "VIBEVOICE_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://somebody:secret@127.0.0.1:1")

    async def environment() -> dict[str, str]:
        models, others = LocalModels(list), {*psutil.Process().children()}
        await models.pull(ANONYMOUS, "vibevoice")
        (child,) = {*psutil.Process().children()} - others
        try:
            return child.environ()
        finally:
            await models.close()

    env = asyncio.run(environment())
    assert {"HF_TOKEN", "HTTPS_PROXY", "HF_HOME"} <= env.keys()
    assert "VIBEVOICE_TOKEN" not in env


def test_third_download_at_once_is_refused(hub: Hub) -> None:
    async def ask() -> list[object]:
        models = LocalModels(list)
        names = ("vibevoice", "whisper:tiny", "whisper:small")
        pulls = [models.pull(ANONYMOUS, name) for name in names]
        begun = await asyncio.gather(*pulls, return_exceptions=True)
        await models.close()
        return [type(one) for one in begun]

    assert asyncio.run(ask()) == [ModelDownload, ModelDownload, errors.PullRunning]


def test_close_of_local_models_ends_a_download_with_a_failed_event(hub: Hub) -> None:
    async def last_event() -> dict[str, object] | None:
        models = LocalModels(list)
        download = await models.pull(ANONYMOUS, "vibevoice")
        async with aclosing(download.events(PATIENCE_S)) as events:
            assert await asyncio.to_thread(hub.stalled.wait, PATIENCE_S)
            await models.close()
            return [event async for event in events][-1]

    hub.stall = {SHARDS[0]: 200_000}
    event = asyncio.run(last_event())
    assert event is not None
    assert event["event"] == "failed"


PULLS = """
import asyncio, sys
from sidecar.auth.identity import ANONYMOUS
from sidecar.cli.output import INTERRUPTED
from sidecar.service.local_models import LocalModels

async def main():
    await LocalModels(list).pull(ANONYMOUS, "vibevoice")
    await asyncio.sleep(3600)

asyncio.run(main())
"""
"""A service that downloads, and is killed."""


def test_download_process_ends_when_its_service_is_killed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")
    hub.stall = {SHARDS[0]: 1}  # no progress, whose line could not be written
    with subprocess.Popen([sys.executable, "-c", PULLS]) as service:
        try:
            assert hub.stalled.wait(PATIENCE_S)
            (child,) = psutil.Process(service.pid).children()
        finally:
            service.kill()
    wait_until(lambda: not runs(child.pid), "the download ends")


@pytest.mark.posix("SIGSTOP")
def test_close_of_local_models_kills_a_download_that_does_not_end(hub: Hub) -> None:
    async def close() -> psutil.Process:
        models, others = LocalModels(list, stop_s=0.1), {*psutil.Process().children()}
        await models.pull(ANONYMOUS, "vibevoice")
        (child,) = {*psutil.Process().children()} - others
        child.suspend()
        await models.close()
        return child

    child = asyncio.run(close())
    wait_until(lambda: not runs(child.pid), "it was killed")


def test_pull_with_exit_with_stdin_ends_as_interrupted_when_standard_input_closes(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")
    hub.stall = {SHARDS[0]: 1}
    words = ["pull", "vibevoice", "--json", "--exit-with-stdin"]
    command = [sys.executable, "-m", "sidecar.main", *words]
    with popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert hub.stalled.wait(PATIENCE_S)
        process.stdin.close()
        assert process.wait(PATIENCE_S) == INTERRUPTED


def pipes() -> set[str]:
    """The pipes that this process has open."""
    found = set[str]()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile, as the hub closes connections
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in found if link.startswith("pipe:")}


@pytest.mark.posix("file descriptors by number")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no such list here")
def test_pipes_of_stopped_download_are_closed(hub: Hub) -> None:
    async def left() -> set[str]:
        models, before = LocalModels(list), pipes()
        await models.pull(ANONYMOUS, "vibevoice")
        assert await asyncio.to_thread(hub.stalled.wait, PATIENCE_S)
        assert pipes() - before
        await models.close()
        return pipes() - before

    hub.stall = {SHARDS[0]: 200_000}
    assert asyncio.run(left()) == set()
