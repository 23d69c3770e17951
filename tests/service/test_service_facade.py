"""What every wire calls, without a wire."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from recordings import silence
from service_process import new_file, until

from sidecar import errors
from sidecar.audio.audio_source import open_recording_file
from sidecar.auth.identity import ANONYMOUS, AuthMethod, Identity, Scope
from sidecar.engines import engine_spec
from sidecar.engines.engine_selection import EngineChoice
from sidecar.gpu_memory.memory_admission import LoadPlan
from sidecar.interfaces.engine_interface import Precision, TranscribeOptions
from sidecar.jobs.duration_prediction import DURATION_FILE_NAME
from sidecar.jobs.job_record import JobChange, JobState, StartedChange
from sidecar.jobs.job_runner import Job
from sidecar.plugin import Plugin
from sidecar.plugins import load_settings
from sidecar.server import app
from sidecar.server.app import create_service
from sidecar.service.facade import Service
from sidecar.transcripts.transcript import Transcript


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    monkeypatch.setenv("VIBEVOICE_SCRIPTED_SPEED", "10")
    service = create_service(load_settings(engine="scripted", data_dir=tmp_path))
    await service.open()
    yield service
    await service.close()


@pytest.mark.parametrize(
    ("settings", "code", "detail", "hint"),
    [
        *(
            (
                {"engine": engine, "language": "de"},
                "engine_unavailable",
                "'moonshine' does not support the language 'de'",
                "pull whisper:small (0.48 GB), then start again, with --language de",
            )
            for engine in ("auto", "moonshine")
        ),
        ({"llm": "ollama"}, "settings_invalid", "'llm' is not an address", "http://"),
    ],
)
def test_service_with_unsupported_language_or_bad_llm_address_is_refused_with_a_remedy(
    settings: dict[str, str],
    code: str,
    detail: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # no model of this machine's is found
    with pytest.raises(errors.SidecarError, match=detail) as refused:
        create_service(load_settings(data_dir=tmp_path, **settings))
    assert refused.value.code == code
    assert hint in refused.value.hint


async def test_notice_of_ignored_prompt_depends_on_the_engine_that_made_the_transcript(
    tmp_path: Path,
) -> None:
    settings = load_settings(engine="scripted", data_dir=tmp_path)
    service = Service(settings, EngineChoice(engine_spec("moonshine-whisper"), "as set"))
    for engine, ignored in (
        *(("upstream host", []), ("transformers", []), ("whisper", [])),
        ("moonshine", ["option_ignored"]),
    ):
        kept = Transcript((), "en", 1.0, engine, "fp32")
        found = service.noted(kept, TranscribeOptions(prompt="A meeting"))
        assert [one.code for one in found.notices] == ignored
    await service.close()


@pytest.mark.parametrize("beside_a_loop", [False, True])
def test_service_is_closed_when_the_part_of_a_plugin_cannot_be_created(
    beside_a_loop: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Part:
        def health(self) -> dict[str, Any]:
            return {}

        async def close(self) -> None:
            closed.append("part")

    def refuse(service: Service) -> None:
        raise errors.SettingsInvalid("The part cannot be created.")

    plugins = [Plugin(name="first", create_part=lambda _: Part())]
    plugins.append(Plugin(name="second", create_part=refuse))
    monkeypatch.setattr(app, "enabled", lambda settings: plugins)
    settings = load_settings(
        engine="scripted", data_dir=tmp_path, keep_jobs=True, journal_key="k" * 32
    )

    async def created() -> Service:
        return create_service(settings)

    with pytest.raises(errors.SettingsInvalid, match=r"The part cannot be created\.") as kept:
        asyncio.run(created()) if beside_a_loop else create_service(settings)
    assert kept.tb is not None, "it has the service: nothing else closes the file of jobs"
    assert closed == ["part"]
    monkeypatch.undo()
    asyncio.run(create_service(settings).close())


async def submitted(service: Service, path: Path) -> Job:
    source = open_recording_file(str(path))
    return await service.submissions.submit(ANONYMOUS, source, TranscribeOptions())


def no_room(precision: Precision) -> LoadPlan:
    raise errors.WontFit()


async def test_reload_and_audio_path_without_their_scope_are_refused_before_an_engine_starts(
    service: Service, tmp_path: Path
) -> None:
    alice = Identity("alice", AuthMethod.JWT)
    may_reload = dataclasses.replace(alice, scopes=frozenset({Scope.RELOAD}))
    for caller, now in ((alice, False), (may_reload, True)):
        with pytest.raises(errors.ScopeMissing):
            await service.reload(caller, "int8", now=now)
    with pytest.raises(errors.AudioPathForbidden):
        await service.submissions.open_path(alice, str(tmp_path / "none.wav"))
    assert service.fleet.files.worker_pid is None


@pytest.mark.parametrize(
    ("precision", "error"), [("int4", errors.PrecisionUnavailable), ("int8", errors.WontFit)]
)
async def test_refused_reload_does_not_requeue_running_job(
    precision: str,
    error: type[errors.SidecarError],
    service: Service,
    voice: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = list[JobChange]()
    service.backend.listen(lambda _, event: changes.append(event.change))
    job = await submitted(service, new_file(tmp_path / "voice.wav", voice))
    await until(lambda: job.record.segments)
    monkeypatch.setattr(service.fleet.files.memory, "place", no_room)
    for _ in range(3):
        heard = len(job.record.segments)
        with pytest.raises(error):
            await service.reload(ANONYMOUS, precision, now=True)
        await until(lambda: len(job.record.segments) > heard or job.ended)  # noqa: B023
        assert job.record.attempts == 1
    await job.result()
    assert (job.state, job.record.attempts) == (JobState.DONE, 1)
    assert changes.count(StartedChange()) == 1, "what is put back starts again, and does not count"


async def test_reload_that_does_not_wait_requeues_running_job_at_the_new_precision(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await submitted(service, new_file(tmp_path / "long.wav", silence(600)))
    await until(lambda: job.record.segments)
    monkeypatch.delenv("VIBEVOICE_SCRIPTED_SPEED")  # the next one takes no time
    assert await service.reload(ANONYMOUS, "int8", now=True) is Precision.INT8
    assert (await job.result()).precision == "int8"


async def test_transcription_pace_is_stored_for_the_next_start_without_transcript_text(
    service: Service, voice: bytes, tmp_path: Path
) -> None:
    job = await submitted(service, new_file(tmp_path / "voice.wav", voice))
    await job.result()
    await service.close()
    file = tmp_path / DURATION_FILE_NAME
    await until(file.exists)  # the end waits only so long for a slow disk
    stored = file.read_text("utf-8")
    words = [one.text for one in job.record.segments]
    assert words
    assert not [one for one in words if one in stored]
    (known,) = json.loads(stored)["paces"]
    assert (known["engine"], known["precision"]) == ("scripted", "fp32")
    assert known["per_s"] > 0.0
    again = create_service(load_settings(engine="scripted", data_dir=tmp_path))
    seconds = again.job_engine.forecast(1000.0, TranscribeOptions()).seconds
    assert seconds == pytest.approx(1000.0 * known["per_s"])


def test_missing_packages_that_nobody_asked_for_are_logged_at_debug_level_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    installed = ("moonshine", "scripted")
    tts = "sidecar.plugins.conversation.tts"
    for module in ("sidecar.server.app", "sidecar.engines", f"{tts}.tts_engine_selection"):
        monkeypatch.setattr(
            f"{module}.missing_packages", lambda spec: [] if spec.name in installed else ["torch"]
        )
    monkeypatch.setattr(f"{tts}.system_tts.is_system_tts_available", lambda: False)
    caplog.set_level(logging.INFO, "sidecar.server.app")
    create_service(load_settings(engine="auto", data_dir=tmp_path))
    shown = [line for line in caplog.messages if "live engine" not in line]
    assert shown == []
    caplog.set_level(logging.DEBUG, "sidecar.server.app")
    create_service(load_settings(engine="auto", data_dir=tmp_path))
    assert "torch" in caplog.text


async def test_service_closes_its_journal_and_raises_if_a_plugin_part_fails_to_close(
    tmp_path: Path,
) -> None:
    class Failing:
        def health(self) -> dict[str, object]:
            return {}

        async def close(self) -> None:
            raise RuntimeError("a part of a plugin")

    given = {"engine": "scripted", "data_dir": tmp_path, "keep_jobs": True, "journal_key": "k" * 32}
    service = create_service(load_settings(**given))
    service.parts.append(Failing())
    with pytest.raises(RuntimeError, match="a part of a plugin"):
        await service.close()
    await create_service(load_settings(**given)).close()
