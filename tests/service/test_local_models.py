"""Models of this machine, without a service around them."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import tiny_whisper
from model_hub import COMMIT, SHARDS, Hub, write_checkpoint
from service_process import PATIENCE_S

from sidecar import errors
from sidecar.auth.identity import ANONYMOUS
from sidecar.checkpoints.checkpoint import cache_folder, hugging_face_cache
from sidecar.checkpoints.model_repositories import VIBEVOICE_REPOSITORY, WHISPER_MODELS
from sidecar.service.local_models import LocalModels

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, from which downloads go to a cache of their own."""
    with Hub({VIBEVOICE_REPOSITORY: write_checkpoint(tmp_path / "published")}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub" / "hub"))
        yield hub


def test_model_that_an_engine_loads_is_not_deleted(hub: Hub) -> None:
    repository = cache_folder(WHISPER_MODELS["small"].repository, hugging_face_cache())
    folder = tiny_whisper.write_like(repository / "snapshots" / COMMIT)
    in_use = [folder]
    models = LocalModels(lambda: in_use)
    with pytest.raises(errors.ModelInUse):
        asyncio.run(models.delete(ANONYMOUS, "whisper:small"))
    in_use.clear()
    asyncio.run(models.delete(ANONYMOUS, "whisper:small"))
    assert not repository.exists()


def test_close_ends_downloads(hub: Hub) -> None:
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
