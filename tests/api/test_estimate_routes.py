"""POST /v1/estimate: an answer before any work, for engines of any size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_vibevoice
from service_process import Server, StartServer, check_problem, wait_until

FIELDS = {
    "fits", "precision", "audio_seconds", "needed_mb", "available_mb", "seconds",
    "longest_audio_seconds", "sentence", "alternatives",
}  # fmt: skip
NO_FILE = str(Path("/no/such/file").absolute())
BECKETT = tiny_vibevoice.clip_wav("beckett")


def estimate(server: Server, **fields: object) -> dict[str, Any]:
    response = server.client.post("/v1/estimate", json=fields)
    assert response.status_code == 200, response.text[:500]
    body = dict(response.json())
    assert set(body) - {"windows", "at_once"} == FIELDS
    return body


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A checkpoint that may take 590 MB: half a minute in bf16 fits, an hour does not."""
    with Server(
        tmp_path_factory.mktemp("narrow"),
        engine="vibevoice",
        model_path=tiny_vibevoice.checkpoint("tiny"),
        memory_limit_mb=590,
        device="cpu",
    ) as running:
        yield running


def test_estimate_of_a_small_engine_says_that_a_recording_of_any_length_fits(
    server: Server,
) -> None:
    for seconds in (10, 3 * 3600):
        body = estimate(server, duration=seconds)
        assert body["fits"] is True
        assert (body["needed_mb"], body["available_mb"]) == (None, None)
        assert body["longest_audio_seconds"] == 5 * 3600
        assert "any length" in body["sentence"]
        assert body["alternatives"] == []


def test_estimate_has_a_time_once_a_recording_was_measured(
    start_server: StartServer, voice: bytes
) -> None:
    server = start_server(scripted_speed=20)
    before = estimate(server, duration=3600)
    assert before["seconds"] is None
    assert "about" not in before["sentence"]
    assert server.post(voice).status_code == 200

    def measured() -> bool:  # a moment after the answer
        return bool(estimate(server, duration=3600)["seconds"])

    wait_until(measured, "there is a time")
    after = estimate(server, duration=3600)
    fits, _, why = before["sentence"].partition(";")
    assert why == " how long it takes is known after a first recording"
    assert after["sentence"].startswith(f"{fits}, about ")
    assert estimate(server, duration=7200)["seconds"] == pytest.approx(2 * after["seconds"], 0.01)


def test_estimate_before_any_measurement_gives_a_usual_range_of_transcription_times(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, engine="moonshine") as server:
        body = estimate(server, duration=3600)
        assert body["seconds"] is None
        assert body["sentence"].endswith(", usually 4 minutes to 15 minutes (not measured here)")
        text_only = estimate(server, duration=3600, diarize=False)
        assert text_only == body | {
            "sentence": f"{body['sentence']}; times are those with speakers"
        }


def test_estimates_by_minutes_duration_path_and_upload_agree(narrow: Server) -> None:
    assert estimate(narrow, minutes=0.5) == estimate(narrow, duration=30)
    by_path = estimate(narrow, audio_path=str(BECKETT))
    assert by_path["audio_seconds"] == pytest.approx(9.963, abs=0.01)
    assert estimate(narrow, duration=by_path["audio_seconds"]) == by_path
    upload = narrow.client.post("/v1/estimate", files={"audio": BECKETT.read_bytes()})
    assert upload.json() == by_path


def test_estimate_warns_of_an_unknown_field_but_not_of_a_transcription_field(
    server: Server,
) -> None:
    plain = estimate(server, duration=10)
    assert estimate(server, duration=10, language="en", diarize=True) == plain
    odd = server.client.post("/v1/estimate", json={"duration": 10, "presicion": "int8"}).json()
    (warning,) = odd.pop("warnings")
    assert odd == plain
    assert warning["code"] == "field_unknown"
    assert "'presicion'" in warning["message"]
    assert "'precision'" in warning["message"]


def test_estimate_that_does_not_fit_names_precisions_or_a_length_that_would(narrow: Server) -> None:
    body = estimate(narrow, duration=30, precision="fp32")
    assert body["fits"] is False
    assert body["needed_mb"] > body["available_mb"]
    assert [other["precision"] for other in body["alternatives"]] == ["bf16", "int4", "int8"]
    assert all(other["needed_mb"] <= 590 for other in body["alternatives"])
    assert body["sentence"] == "does not fit; bf16 or int4 or int8 would"
    hour = estimate(narrow, duration=3600)
    assert hour["fits"] is False
    assert hour["alternatives"] == []
    assert "minutes of it would" in hour["sentence"]


def test_estimate_for_a_gpu_has_windows_and_the_next_smaller_and_larger_gpu(server: Server) -> None:
    wanted = {"minutes": 90, "card": "rtx-3060-12gb", "precision": "auto"}
    response = server.client.post("/v1/estimate", json=wanted)
    body = response.json()
    assert set(body) == FIELDS | {"windows", "at_once", "card", "smaller", "larger"}
    assert (body["card"], body["fits"], body["precision"]) == ("RTX 3060 12GB", True, "int4")
    assert body["windows"] * 300 <= 5400 + body["windows"] * 130
    assert 1 < body["at_once"] <= 8
    assert body["needed_mb"] <= body["available_mb"] == 12 << 10
    assert body["seconds"] < 900
    beside = [body[name] for name in ("smaller", "larger")]
    assert [one["card"] for one in beside] == ["10GB", "16GB"]
    assert not any({"smaller", "larger"} & one.keys() for one in beside)
    same = server.client.post("/v1/estimate", json={**wanted, "minutes": None, "duration": 5400})
    assert same.json() == body


def test_recording_whose_estimate_does_not_fit_is_refused_and_starts_no_job_or_worker(
    narrow: Server,
) -> None:
    """A recording that cannot fit is refused before any work, with the options that would."""
    audio = BECKETT.read_bytes()
    assert estimate(narrow, audio_path=str(BECKETT), precision="fp32")["fits"] is False
    response = narrow.post(audio, precision="fp32")
    check_problem(response, 507, "wont_fit")
    for way in ("bf16", "int8", "int4"):
        assert f"precision {way}" in response.json()["hint"]
    health = narrow.health()
    assert (health["worker_pid"], health["jobs_waiting"]) == (None, 0)
    assert narrow.jobs() == []
    assert "worker vibevoice started" not in narrow.log()


def test_fp16_on_a_cpu_is_estimated_as_bf16_and_the_sentence_says_so(narrow: Server) -> None:
    body = estimate(narrow, duration=10, precision="fp16")
    assert (body["fits"], body["precision"], body["alternatives"]) == (True, "bf16", [])
    assert 0 < body["needed_mb"] <= body["available_mb"] == 590
    assert 30 <= body["longest_audio_seconds"] < 3600
    assert body["sentence"].endswith("; fp16 runs as bf16 here")


def test_unavailable_int4_is_estimated_as_bf16_and_its_reload_refused_with_the_reason(
    start_server: StartServer, tmp_path: Path
) -> None:
    folder = tiny_vibevoice.with_odd_width(tmp_path / "odd")
    server = start_server(engine="vibevoice", model_path=folder, device="cpu")
    reason = "on a CPU it needs widths that are multiples of 64, not 288"
    body = estimate(server, duration=10, precision="int4")
    assert (body["fits"], body["precision"]) == (True, "bf16")
    assert body["sentence"].endswith(f"; int4 runs as bf16 here: {reason}")
    response = server.client.post("/reload-model", json={"precision": "int4"})
    check_problem(response, 422, "precision_unavailable")
    assert reason in response.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 422, "field_missing"),
        ({"duration": -1}, 422, "field_invalid"),
        ({"duration": "long"}, 422, "field_invalid"),
        ({"duration": 1e9}, 422, "field_invalid"),
        ({"duration": 5, "audio_path": "/a"}, 422, "field_invalid"),
        ({"duration": 5, "minutes": 1}, 422, "field_invalid"),
        ({"minutes": 1e6}, 422, "field_invalid"),
        ({"minutes": 5, "card": "RTX 4095"}, 422, "field_invalid"),
        ({"card": "12GB"}, 422, "field_missing"),
        ({"audio_path": NO_FILE}, {400, 404}, "audio_path_not_found"),
    ],
    ids=str,
)
def test_estimate_of_missing_invalid_or_contradictory_fields_is_refused(
    fields: dict[str, object], status: int | set[int], code: str, server: Server
) -> None:
    response = server.client.post("/v1/estimate", json=fields)
    check_problem(response, status, code)


def test_estimate_of_a_file_without_audio_is_refused_and_leaves_no_file_or_descriptor(
    server: Server,
) -> None:
    server.post(b"no audio")  # the process that looks at files is up
    before = server.process.num_fds()
    for _ in range(5):
        response = server.client.post("/v1/estimate", files={"audio": b"no audio"})
        check_problem(response, 415, "audio_format_unsupported")
    response = server.client.post("/v1/estimate", content=b"x", headers={"Content-Type": "a/b"})
    check_problem(response, 415, "content_type_unsupported")
    wait_until(lambda: server.process.num_fds() <= before, "they are closed")
    assert not server.leftovers()
