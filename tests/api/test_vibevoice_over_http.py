"""VibeVoice-ASR over HTTP: the real architecture, at a size that knows three clips by heart.

Every load is a process that imports torch, so the tests share a server and take it as they find it.
A worker that is to be caught in the middle of a job is stopped (SIGSTOP) meanwhile: nothing here
depends on how fast it is.
"""

import io
import shutil
import sys
import wave
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny_vibevoice
from service_process import Server, halted, wait_until

from bench.serving import KEY
from sidecar.jobs.sqlite_event_log import SqliteJobEventLog

ENDED = ("done", "failed", "cancelled")
MULTIPART, JSON = "multipart", "json"


@dataclass(frozen=True)
class Served:
    """A server, its checkpoint's folder, and how it was when it first answered."""

    server: Server
    folder: Path
    first_health: dict[str, Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("vibevoice")
    folder = home / "checkpoint"
    shutil.copytree(tiny_vibevoice.checkpoint("tiny"), folder)
    with Server(
        home / "server",
        fresh=True,  # what it has loaded is looked at
        engine="vibevoice",
        model_path=folder,
        preload="true",
        keep_alive=-1,
        precision="fp32",  # bf16 takes three times as long on a processor that has none
    ) as server:
        first = server.health()
        wait_until(lambda: server.health()["model_loaded"], "the engine is loaded")
        yield Served(server, folder, first)


@pytest.fixture
def server(served: Served) -> Iterator[Server]:
    """The shared server, with nothing to do before and after."""
    yield served.server
    for job in served.server.jobs():
        served.server.cancel(job["id"])


def expected(name: str, prompt: str | None = None) -> list[dict[str, Any]]:
    """The segments of a clip as the wire has them."""
    segments = []
    for said in tiny_vibevoice.answers("tiny", prompt)[name]:
        segments.append(
            {
                "speaker": f"Speaker_{said.get('Speaker', 0)}",
                "start_time": float(said["Start"]),
                "end_time": float(said["End"]),
                "text": said["Content"],
                **({} if "Speaker" in said else {"flags": ["non_speech"]}),
            }
        )
    return segments


def bare(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The segments without the model's confidence, which is high, and without languages."""
    for segment in body["segments"]:
        assert "flags" in segment or segment.pop("confidence") > 0.9
        segment.pop("language", None)
    return list(body["segments"])


def audio(name: str) -> bytes:
    return tiny_vibevoice.clip_wav(name).read_bytes()


def repeated(times: int) -> bytes:
    """All clips one after the other, again and again: 68 s each time."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, tiny_vibevoice.RATE, 0, "NONE", ""))
        for name in tiny_vibevoice.CLIPS * times:
            with wave.open(str(tiny_vibevoice.clip_wav(name))) as clip:
                out.writeframes(clip.readframes(clip.getnframes()))
    return file.getvalue()


def finished(server: Server, job_id: str) -> dict[str, Any]:
    """The job, done."""
    job = server.wait_state(job_id, *ENDED)
    assert job["state"] == "done", job
    return job


def check_right(server: Server, job_id: str, name: str) -> dict[str, Any]:
    """The job ended with the clip's transcript; its metadata."""
    finished(server, job_id)
    result = server.transcript(job_id)
    assert bare(result) == expected(name)
    return dict(result["metadata"])


def check_serves(server: Server) -> None:
    """A job that comes now gets its answer."""
    response = server.post(audio("beckett"))
    assert response.status_code == 200, response.text[:500]
    assert bare(response.json()) == expected("beckett")


def stopped(server: Server) -> AbstractContextManager[None]:
    """The worker's process stands still meanwhile."""
    return halted(int(server.health()["worker_pid"]))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_service_answers_before_torch_is_loaded_and_never_imports_it(served: Served) -> None:
    assert served.first_health["model_loaded"] is False
    assert served.first_health["status"] == "loading"
    assert type(served.first_health["load_percent"]) is int
    assert served.server.health()["load_percent"] is None
    own = Path(f"/proc/{served.server.process.pid}/maps").read_text(encoding="utf-8")
    worker = Path(f"/proc/{served.server.health()['worker_pid']}/maps").read_text(encoding="utf-8")
    assert "libtorch" in worker
    assert "libtorch" not in own
    assert "numpy" not in own


def test_log_names_the_checkpoint_without_its_path(served: Served) -> None:
    assert f", checkpoint {served.folder.name})" in served.server.log()
    assert str(served.folder) not in served.server.log()


@pytest.mark.slow_except("beckett")
@pytest.mark.parametrize(
    ("form", "name"), [*((MULTIPART, name) for name in tiny_vibevoice.CLIPS), (JSON, "beckett")]
)
def test_upload_and_path_get_the_exact_transcript(name: str, form: str, server: Server) -> None:
    if form == MULTIPART:
        response = server.post(audio(name))
    else:
        response = server.post_path(str(tiny_vibevoice.clip_wav(name)), language="auto")
    assert response.status_code == 200, response.text[:500]
    body = response.json()
    assert bare(body) == expected(name)
    about = body["metadata"]
    speakers = {
        said["Speaker"] for said in tiny_vibevoice.answers("tiny")[name] if "Speaker" in said
    }
    assert about["num_speakers"] == len(speakers)
    assert about["engine"] == "vibevoice"
    assert about["diarized"] is True
    assert about["warnings"] == []


def test_vibevoice_worker_leaves_no_file_in_the_temporary_folder(server: Server) -> None:
    assert list(server.temp.iterdir()) == []


def test_prompt_and_hotwords_steer_the_spelling(server: Server) -> None:
    corrected = expected("beckett", tiny_vibevoice.CONTEXT)
    assert corrected != expected("beckett")
    body = server.post(audio("beckett"), prompt="Samuel Beckett", hotwords="Endgame").json()
    assert bare(body) == corrected
    assert body["metadata"]["warnings"] == []


@pytest.mark.slow
def test_token_limit_truncates_the_transcript_and_ignored_options_give_a_warning(
    server: Server,
) -> None:
    """What they do to an answer is chance; that they do something is not."""
    cut = server.post(audio("endgame_nagg_nell"), max_tokens="40").json()
    assert [one["code"] for one in cut["metadata"]["warnings"]] == ["output_truncated"]
    whole = expected("endgame_nagg_nell")
    assert bare(cut)[0] == whole[0]
    assert len(cut["segments"]) < len(whole)
    nothing = server.post(audio("endgame_nagg_nell"), max_tokens="5").json()
    assert [one["code"] for one in nothing["metadata"]["warnings"]] == ["output_truncated"]
    assert (nothing["segments"], nothing["metadata"]["no_speech"]) == ([], False)
    for fields, ignored in (
        ({"temperature": "0.01"}, []),
        ({"num_speakers": "2"}, ["option_ignored"]),
    ):
        body = server.post(audio("beckett"), **fields).json()
        assert body["status"] == "success"
        assert [one["code"] for one in body["metadata"]["warnings"]] == ignored
    short = server.post(audio("beckett"), windows="parallel").json()
    assert [one["code"] for one in short["metadata"]["warnings"]] == ["windows_not_parallel"]
    assert bare(short) == expected("beckett")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["encode", "prefill"])
def test_job_cancelled_before_decoding_leaves_the_worker_alive(phase: str, server: Server) -> None:
    """68 s of audio are encoded, 3,000 tokens of prompt are prefilled, before the first segment."""
    recording, prompt = (repeated(1), "") if phase == "encode" else (audio("beckett"), "長" * 1024)
    worker = server.health()["worker_pid"]

    def cpu_s() -> float:
        """Processor time of the worker."""
        return sum(psutil.Process(worker).cpu_times()[:2])

    def decodes(job: str) -> bool:
        return bool(server.job(job)["progress"]["audio_seconds_done"] > 0)

    def job_after(spent_s: float) -> str | None:
        """A job that has taken so much and is not decoded yet; None if it is by then."""
        begin_s = cpu_s()
        job = server.submit(recording, prompt=prompt)
        wait_until(lambda: cpu_s() - begin_s >= spent_s or decodes(job), "so far")
        if not decodes(job):
            return job
        server.cancel(job)
        wait_until(lambda: server.health()["engine_state"] == "ready", "it stopped")
        return None

    begin_s = cpu_s()
    job = server.submit(recording, prompt=prompt)
    wait_until(lambda: decodes(job), "the first segment")
    before_s = cpu_s() - begin_s
    server.cancel(job)
    for part in (0.3, 0.6):
        spent_s = part * before_s
        while (begun := job_after(spent_s)) is None:
            spent_s *= 0.8  # the same work takes a processor now more time, now less
        check_cancelled(server, begun)
    assert server.health()["worker_pid"] == worker
    check_serves(server)


def check_cancelled(server: Server, job_id: str) -> None:
    """It ends now, and the engine is free without a new process."""
    assert server.cancel(job_id)["state"] == "cancelled"
    wait_until(lambda: server.health()["engine_state"] == "ready", "it stopped")


@pytest.mark.slow
def test_batch_setting_is_the_number_of_jobs_that_run_at_once(tmp_path: Path) -> None:
    folder = tiny_vibevoice.checkpoint("tiny")
    names = ["beckett", *tiny_vibevoice.CLIPS]
    engine = {"engine": "vibevoice", "model_path": folder, "preload": "true"}
    with Server(tmp_path, batch=3, keep_jobs=True, journal_key=KEY, **engine) as server:
        wait_until(lambda: server.health()["model_loaded"], "the engine is loaded")
        with stopped(server):
            jobs = [server.submit(audio(name)) for name in names]
        for job, name in zip(jobs, names, strict=True):
            check_right(server, job, name)
    with closing(SqliteJobEventLog(tmp_path / "data" / "jobs", KEY)) as journal:
        times = [[event.at for event in journal.events(job)] for job in jobs]
    begins_and_ends = sorted([(one[0], 1) for one in times] + [(one[-1], -1) for one in times])
    assert max(accumulate(more for _, more in begins_and_ends)) == 3
