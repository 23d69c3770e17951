"""The engine inside the service: when it is chosen, whom it trusts, and a key that stays secret."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from not_tested import missing
from service_process import StartServer, free_port, wait_until
from upstream_engine_samples import RATE, Engine, Sound
from upstream_stand_ins import OpenAiStandIn

from sidecar.cli import doctor
from sidecar.config.settings import Settings
from sidecar.plugins import load_settings
from sidecar.plugins.upstream import PLUGIN
from sidecar.plugins.upstream.errors import UpstreamRefused
from sidecar.service.system_checks import CheckState

KEY = "sk-nobody-elses-business-0123456789"


def noise(seed: int, seconds: int) -> Sound:
    dice = np.random.default_rng(seed)
    return Sound((dice.integers(-3000, 3000, seconds * RATE) / 32768).astype(np.float32))


def test_upstream_key_goes_only_to_the_upstream(start_server: StartServer) -> None:
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
        worker.kill()
        assert here.post(noise(2, 2).wav()).status_code == 200  # by a fresh one
        notes = here.home / "data/crash"
        wait_until(lambda: list(notes.glob("*.json")), "the crash is noted")
        refused = here.post(b"no audio").text
    report = here.home / "report.zip"
    assert doctor.write(report, "", Settings(data_dir=here.home / "data")) == 0
    texts = [health, answer.text, refused, here.log()]
    texts += [path.read_text("utf-8") for path in (here.home / "data").rglob("*.*")]
    with zipfile.ZipFile(report) as packed:
        texts += [packed.read(name).decode() for name in packed.namelist()]
    assert len(texts) >= 9
    assert (here.home / "data/upstreams.json").exists(), "what the upstream can is remembered"
    assert not [text for text in texts if KEY in text]


@pytest.mark.skipif(shutil.which("openssl") is None, reason=missing("openssl", "openssl"))
def test_self_signed_certificate_of_an_upstream_is_refused_unless_its_ca_is_configured(
    tmp_path: Path,
) -> None:
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
        with pytest.raises(UpstreamRefused, match="certificate"):
            Engine(url).transcript(sound, diarize=False)
        heard = Engine(url, ca=str(certificate)).transcript(sound, diarize=False)
    assert len(heard.text.split()) == 4


def test_doctor_says_which_upstreams_answer() -> None:
    with OpenAiStandIn() as there:
        gone = f"http://127.0.0.1:{free_port()}"
        settings = load_settings(engine="upstream", upstream=(there.url, gone))
        well, ill = PLUGIN.checks(settings)
        assert (well.state, ill.state) == (CheckState.GOOD, CheckState.WARNING)
        assert well.text == f"127.0.0.1:{there.port} answers (openai); speakers are told apart here"
        assert gone.removeprefix("http://") in ill.text
        assert not list(PLUGIN.checks(settings.model_copy(update={"engine": "auto"})))
        assert there.asked == []
    (none,) = PLUGIN.checks(load_settings(engine="upstream"))
    assert none.state is CheckState.BAD
