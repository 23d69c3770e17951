"""The plugin in a service: jobs over HTTP, a killed worker process, resume points, plans."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("libggml", reason="ggml is missing (pip install libggml-python)")
pytest.importorskip("gguf", reason="gguf is missing (pip install gguf)")

import tiny_vibevoice
from engine_requests import SampleStream, request_of, transcript_of
from vibevoice_asr_ggml import SPEC
from vibevoice_asr_ggml import files as ggml_files
from vibevoice_asr_ggml.engine import GgmlEngine

from sidecar import errors
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    Precision,
    TranscribeOptions,
    WindowingMode,
)
from sidecar.transcripts.transcript import Finished, Progress, ResumePoint, SegmentReady

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parents[1]
KILL = """
import json, sys, time
import psutil
from starlette.testclient import TestClient
from sidecar.plugins import load_settings
from sidecar.server.app import create_app
settings = dict(engine="vibevoice-ggml", model_path=sys.argv[1], ggml_threads=1, device="cpu")
app = create_app(load_settings(**settings, precision="int8"))
with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5000)) as client:
    estimate = client.post("/v1/estimate", json={"duration": 3600}).json()
    job = client.post("/v1/jobs", files={"file": open(sys.argv[2], "rb")}).json()["id"]
    killed = False
    while (state := client.get(f"/v1/jobs/{job}").json())["state"] in ("queued", "running"):
        if state["state"] == "running" and not killed:
            for one in psutil.Process().children(recursive=True):
                if any("libggml" in mapped.path for mapped in one.memory_maps()):
                    killed = True
                    one.kill()
        time.sleep(0.02)
    done = client.get(f"/v1/jobs/{job}/transcript").json()
    measured = client.post("/v1/estimate", json={"duration": 3600}).json()
    client.post("/reload-model", json={"precision": "int4"}).raise_for_status()
    again = client.post("/transcribe", files={"file": open(sys.argv[2], "rb")}).json()
    print(json.dumps({"killed": killed, "job": state, "transcript": done, "estimate": estimate,
                      "measured": measured, "again": again}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "tests", "__pycache__")
    shutil.copytree(PACKAGE, folder / "source", ignore=ignored)
    how = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
    command = [sys.executable, "-m", "pip", "install", *how, "--target", folder / "site", "."]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def run_with(site: Path, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **more, "PYTHONPATH": f"{site}:{ROOT}:{ROOT}/clients/python/src"}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True
    )


def test_trial_with_another_number_of_threads_is_no_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pace = tmp_path / "tiny-q8_0.gguf", ggml_files.Pace(0.5, 0.25)
    monkeypatch.setenv(ggml_files.THREADS, "2")
    pace.write(file)
    assert ggml_files.Pace.read(file) == pace
    monkeypatch.setenv(ggml_files.THREADS, "3")
    assert ggml_files.Pace.read(file) is None


@pytest.mark.system
def test_job_of_a_killed_worker_has_its_words_and_a_reload_takes_another_file(
    site: Path, files: Path
) -> None:
    wav = tiny_vibevoice.clip_wav("beckett")
    done = run_with(site, "-c", KILL, files, wav)
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["killed"]
    assert said["job"]["state"] == "done", said
    wanted = [one["Content"] for one in tiny_vibevoice.answers("tiny")["beckett"]]
    assert [one["text"] for one in said["transcript"]["segments"]] == wanted
    assert said["transcript"]["metadata"]["engine"] == "vibevoice-ggml"
    assert "not measured here" in said["estimate"]["sentence"]
    assert " by a trial here" in said["measured"]["sentence"]
    assert said["transcript"]["metadata"]["model_precision"] == "int8"
    assert said["again"]["metadata"]["model_precision"] == "int4"
    assert [one["text"] for one in said["again"]["segments"]] == wanted


@pytest.mark.system
def test_command_converts_and_doctor_names_library_and_file(
    site: Path, checkpoint: Path, tmp_path: Path
) -> None:
    converted = run_with(
        site, "-m", "sidecar.main", "convert-ggml", checkpoint, "--to", tmp_path, "--kind", "q8_0"
    )
    assert converted.returncode == 0, converted.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["vibevoice-asr-q8_0.gguf"]
    own = {"VIBEVOICE_ENGINE": "vibevoice-ggml", "VIBEVOICE_MODEL_PATH": str(tmp_path)}
    doctor = run_with(site, "-m", "sidecar.main", "doctor", **own)
    assert "0.20." in doctor.stdout, doctor.stdout + doctor.stderr
    assert "int8; real time needs some eight cores" in doctor.stdout


@pytest.fixture(scope="module")
def engine(files: Path) -> GgmlEngine:
    made = GgmlEngine()
    list(made.load(LoadOptions(precision=Precision.FP16, checkpoint=str(files), device="cpu")))
    return made


def test_recording_resumed_between_windows_has_the_transcript_of_one_that_ran_through(
    engine: GgmlEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ggml_files, "WINDOW_S", 14.0)
    monkeypatch.setattr(ggml_files, "MIN_WINDOW_S", 14.0)
    audio = SampleStream(np.tile(tiny_vibevoice.clip_24k("beckett"), 3), 24_000)
    request = request_of(audio, TranscribeOptions(diarize=False))
    events = [*engine.transcribe_from([], request)]
    points = [one for one in events if isinstance(one, ResumePoint)]
    assert {one.form for one in points} == {"vibevoice-ggml-1"}
    assert len(points) > 1
    done_s = [one.audio_s_done for one in events if isinstance(one, Progress)]
    assert done_s == sorted(done_s)
    assert len(done_s) > 3
    resumed = [*engine.transcribe_from(points[:1], request)]
    assert transcript_of([*_reported(points[:1]), *resumed]) == transcript_of(events)


def _reported(points: list[ResumePoint]) -> list[SegmentReady]:
    segments = [one for point in points for one in point.segments]
    return [SegmentReady(number, one) for number, one in enumerate(segments)]


def test_recording_that_is_cancelled_ends_without_a_transcript(engine: GgmlEngine) -> None:
    calls = [0]

    def cancelled() -> bool:
        calls[0] += 1
        return calls[0] > 40

    audio = SampleStream(tiny_vibevoice.clip_24k("beckett"), 24_000)
    events = [*engine.transcribe(request_of(audio, TranscribeOptions(), cancelled))]
    assert not any(isinstance(one, Finished) for one in events)


def test_windows_are_as_long_as_memory_allows_and_a_plan_that_does_not_fit_is_refused(
    files: Path,
) -> None:
    spec, checkpoint = ggml_files.find_files(SPEC, files, None)
    own = ggml_files.footprints_of(spec, checkpoint)[Precision.INT4]
    whole = replace(TranscribeOptions(), windows=WindowingMode.SINGLE)
    plenty, some = 1 << 40, own.window_bytes(300.0)
    assert ggml_files.planned(TranscribeOptions(), own, plenty).memory.window_s == 300.0
    assert ggml_files.planned(whole, own, plenty).memory.window_s == 3600.0
    shorter = ggml_files.planned(whole, own, some).memory
    assert 30.0 <= shorter.window_s <= 300.0
    assert own.window_bytes(shorter.window_s) <= some
    with pytest.raises(errors.WontFit):
        ggml_files.planned(whole, own, own.window_bytes(30.0) - 1)


def test_package_imports_only_public_names() -> None:
    kits = "plugin service.facade api.http config.setting_types interfaces transcripts errors cli"
    more = "audio checkpoints.checkpoint gpu_memory service.system_checks"
    parts = [
        f"engines.vibevoice.vibevoice_{one}" for one in ("transcription", "generation", "prompt")
    ]
    public = [f"sidecar.{one}" for one in (*kits.split(), *more.split(), *parts)]
    listed = (ROOT / "docs/plugins.md").read_text("utf-8")
    assert all(f"`{one}`" in listed for one in public)
    for file in (PACKAGE / "vibevoice_asr_ggml").glob("*.py"):
        for line in file.read_text("utf-8").splitlines():
            words = line.split()
            is_ours = words[:1] == ["from"] and words[1].startswith("sidecar.")
            if is_ours and words[1] != "sidecar.config.settings":  # of that only a type
                assert any(f"{words[1]}.".startswith(f"{one}.") for one in public), line
