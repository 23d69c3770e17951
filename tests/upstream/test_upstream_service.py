"""The engine inside the service: jobs over two servers, a cancel, a key that stays secret."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faulty_proxy import FaultyProxy
from not_tested import missing
from service_process import PATIENCE_S, Server, counting_listener, free_port, wait_until
from upstream_engine_samples import RATE, Engine, Sound
from upstream_stand_ins import OpenAiStandIn

from sidecar import errors
from sidecar.cli import doctor
from sidecar.config.settings import Settings
from sidecar.engines import create_engine
from sidecar.engines.engine_selection import choose_engine
from sidecar.upstream.upstream_engine import UpstreamEngine

Started = Callable[..., Server]
KEY = "sk-nobody-elses-business-0123456789"
JOBS = 20


def noise(seed: int, seconds: int) -> Sound:
    dice = np.random.default_rng(seed)
    return Sound((dice.integers(-3000, 3000, seconds * RATE) / 32768).astype(np.float32))


def fingerprints(sound: Sound) -> list[str]:
    """What the scripted engine says to it."""
    found, so_far = [], 0
    for at in range(0, len(sound.samples), RATE):
        so_far = zlib.crc32(sound.samples[at : at + RATE].tobytes(), so_far)
        found.append(f"{so_far:08x}")
    return found


@pytest.mark.slow
def test_twenty_jobs_over_two_upstreams_survive_the_kill_of_one(
    start_server: Started,
) -> None:
    one, other = (start_server(scripted_speed=speed) for speed in (8, 16))
    named = {f"upstream 127.0.0.1:{there.port}" for there in (one, other)}
    urls = ",".join(f"http://127.0.0.1:{there.port}" for there in (one, other))
    here = start_server(engine="upstream", upstream=urls)
    sounds = [noise(seed, 2) for seed in range(JOBS)]
    jobs = [here.submit(sound.wav()) for sound in sounds[: JOBS // 2]]

    def done() -> list[dict[str, Any]]:
        return [job for job in map(here.job, jobs) if job["state"] == "done"]

    def heard_by() -> set[str]:
        return {here.transcript(job["id"])["metadata"]["engine"] for job in done()}

    wait_until(lambda: heard_by() == named, PATIENCE_S, "both have heard something")
    jobs += [here.submit(sound.wav()) for sound in sounds[JOBS // 2 :]]
    wait_until(
        lambda: len(done()) == JOBS or one.health()["engine_state"] == "busy", PATIENCE_S, "busy"
    )
    for process in one.family():
        process.kill()
    for job, sound in zip(jobs, sounds, strict=True):
        body = here.wait_state(job, "done", "failed", timeout_s=PATIENCE_S)
        assert body["state"] == "done", body
        said = [segment["text"] for segment in here.transcript(job)["segments"]]
        assert said == fingerprints(sound)


def test_cancelled_job_hangs_up_and_the_worker_stays(start_server: Started, server: Server) -> None:
    with FaultyProxy(server.port) as proxy:
        here = start_server(engine="upstream", upstream=proxy.url)
        assert here.post(noise(1, 2).wav()).status_code == 200
        worker = here.health()["worker_pid"]
        proxy.plan.append("slow")
        job = here.submit(noise(2, 2).wav())
        wait_until(lambda: len(proxy.posts) == 2, PATIENCE_S, "it is sent")
        here.cancel(job)
        assert proxy.hung_up.wait(PATIENCE_S)
        assert here.post(noise(3, 2).wav()).status_code == 200
        stayed = here.health()["worker_pid"] == worker
        # Who does not stop within a second is killed; so is who had no processor for a second.
        assert stayed or "does not answer and is killed" in here.log()


def test_key_goes_only_to_the_upstream(start_server: Started) -> None:
    with OpenAiStandIn() as there:
        here = start_server(
            fresh=True, engine="upstream", upstream=there.url, upstream_key=KEY, log_level="debug"
        )
        answer = here.post(noise(1, 2).wav(), diarize="false")
        assert answer.status_code == 200, answer.text
        assert set(there.keys) == {f"Bearer {KEY}"}
        health = here.client.get("/health").text
        worker = psutil.Process(here.health()["worker_pid"])
        assert KEY not in str(worker.environ())
        assert KEY not in str(worker.cmdline())
        os.kill(worker.pid, signal.SIGKILL)
        assert here.post(noise(2, 2).wav()).status_code == 200  # by a fresh one
        notes = here.home / "data/crash"
        wait_until(lambda: list(notes.glob("*.json")), PATIENCE_S, "the crash is noted")
        refused = here.post(b"no audio").text
    report = here.home / "report.zip"
    assert doctor.write(report, "", Settings(data_dir=here.home / "data")) == 0
    texts = [health, answer.text, refused, here.log()]
    texts += [path.read_text("utf-8") for path in (here.home / "data").rglob("*.*")]
    with zipfile.ZipFile(report) as packed:
        texts += [packed.read(name).decode() for name in packed.namelist()]
    assert len(texts) >= 9
    assert not [text for text in texts if KEY in text]


def test_upstream_is_asked_only_if_the_engine_is_chosen_by_name() -> None:
    with counting_listener() as (port, visits):
        for name in ("auto", "moonshine", "scripted"):
            chosen = choose_engine(Settings(engine=name, upstream=(f"http://127.0.0.1:{port}",)))
            assert chosen.upstream is None
            engine = create_engine(chosen.spec.name)
            assert not isinstance(engine, UpstreamEngine)
        assert visits == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason=missing("openssl", "openssl"))
def test_certificate_of_an_upstream_is_checked_also_by_an_own_ca(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=box", "-keyout", key, "-out", certificate),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    sound = noise(1, 2)
    with OpenAiStandIn(ssl_keyfile=str(key), ssl_certfile=str(certificate)) as there:
        url = there.url.replace("http:", "https:")
        with pytest.raises(errors.UpstreamRefused, match="certificate"):
            Engine(url).transcript(sound, diarize=False)
        heard = Engine(url, ca=str(certificate)).transcript(sound, diarize=False)
    assert len(heard.text.split()) == 4


def test_doctor_says_which_upstreams_answer() -> None:
    from sidecar.cli.doctor import _upstreams
    from sidecar.service.system_checks import CheckState

    with OpenAiStandIn() as there:
        gone = f"http://127.0.0.1:{free_port()}"
        settings = Settings(engine="upstream", upstream=(there.url, gone))
        well, ill = list(_upstreams(settings))
        assert (well.state, ill.state) == (CheckState.GOOD, CheckState.WARNING)
        assert well.text == f"127.0.0.1:{there.port} answers (openai); speakers are told apart here"
        assert gone.removeprefix("http://") in ill.text
        assert not list(_upstreams(settings.model_copy(update={"engine": "auto"})))
        assert there.asked == []
    (none,) = _upstreams(Settings(engine="upstream"))
    assert none.state is CheckState.BAD
