"""A live talk that is over becomes a job like any other, where its client asked for that."""

import base64
import io
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from grpc_client import Client as GrpcClient
from grpc_client import chunks_of
from live_wire import heard, next_of, rest, say, wire
from scripted_speech import talk
from service_process import Server, wait_until
from vibevoice_asr_client import Client
from vibevoice_asr_client.live_events import Summary

KEY = "0123456789abcdef" * 4
DEADLY = 0.7
"""Loudness of what kills the engine."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("talks")


def serving(home: Path) -> Server:
    return Server(
        home,
        keep_jobs=1,
        data_dir=home,
        journal_key=KEY,
        keep_recordings_mb=10,
        live_grace=0.2,
        grpc_port=0,
        grpc_keep=1,
        scripted_poison="w699,w700",
    )


@pytest.fixture(scope="module")
def keeps(home: Path) -> Iterator[Server]:
    """A service that keeps jobs and their recordings."""
    with serving(home) as up:
        yield up


async def test_only_a_kept_session_is_a_job_with_formats_edits_and_recording(keeps: Server) -> None:
    raw, before = talk(0.3, 0.5), {one["id"] for one in keeps.jobs()}
    assert "job" not in (await heard(keeps, raw))[-1]
    assert {one["id"] for one in keeps.jobs()} == before

    summary = (await heard(keeps, raw, keep=True, words=True))[-1]
    (job,) = [one for one in keeps.jobs() if one["id"] not in before]
    assert (job["id"], job["state"]) == (summary["job"], "done")
    path = f"/v1/jobs/{summary['job']}"
    result = keeps.transcript(summary["job"])
    assert result["segments"] == summary["transcript"]["segments"]
    assert len(result["segments"]) == 2
    assert keeps.client.get(path).json()["recording"] is True
    samples, rate = soundfile.read(
        io.BytesIO(keeps.client.get(f"{path}/audio").content), dtype="int16"
    )
    assert rate == 16_000
    assert samples.tobytes() == raw
    drawn = keeps.client.get(f"{path}/peaks").json()
    assert len(base64.b64decode(drawn["peaks"])) == len(raw) // 3200

    rename = {"operations": [{"op": "rename", "speaker": "Speaker_0", "name": "Nell"}]}
    assert keeps.client.patch(f"{path}/transcript", json=rename).status_code == 200
    for fmt in ("text", "srt", "vtt"):
        shown = keeps.client.get(f"{path}/transcript", params={"format": fmt}).text
        assert "Nell" in shown
    events = keeps.client.get(f"{path}/events").text
    assert events.count("event: segment") == 2
    assert "event: done" in events


async def test_kept_session_of_a_lost_client_becomes_a_job(keeps: Server) -> None:
    before = {one["id"] for one in keeps.jobs()}
    async with wire(keeps) as socket:
        await say(socket, "begin", keep=True)
        await socket.send(talk(0.3, 0.3))
        text = (await next_of(socket, "final"))["segment"]["text"]
        socket.transport.abort()
    wait_until(lambda: {one["id"] for one in keeps.jobs()} - before, "it is a job")
    (made,) = {one["id"] for one in keeps.jobs()} - before
    result = keeps.transcript(made)
    assert result["segments"][0]["text"] == text


@pytest.mark.parametrize(
    "session", [str(uuid.uuid4()), uuid.uuid4().hex], ids=["hyphens", "digits"]
)
async def test_kept_session_whose_client_comes_back_too_late_is_a_job_with_its_id_and_name(
    session: str, keeps: Server
) -> None:
    async with wire(keeps) as socket:
        await say(socket, "begin", keep=True, session=session, name="talks/Köln\n.m4a")
        await socket.send(talk(0.3))
        text = (await next_of(socket, "final"))["segment"]["text"]
        socket.transport.abort()
    path = f"/v1/jobs/{session}"
    wait_until(lambda: keeps.client.get(path).is_success, "it is a job")
    said: list[dict[str, Any]] = [{}]
    while said[-1].get("code") != "session_not_found":  # until then it has the summary
        async with wire(keeps) as socket:
            await say(socket, "begin", session=session, after=0)
            said, _ = await rest(socket)
    assert keeps.client.get(path).json()["name"] == "Köln.m4a"
    assert keeps.transcript(session)["segments"][0]["text"] == text


@pytest.mark.parametrize("session", ["again", str(uuid.uuid4())], ids=["name", "uuid"])
async def test_kept_sessions_of_one_id_are_jobs_of_their_own(session: str, keeps: Server) -> None:
    made: list[str] = []
    while len(made) < 2:  # its id is free once the service knows that the first client is gone
        async with wire(keeps) as socket:
            await say(socket, "begin", keep=True, session=session)
            await socket.send(talk((0.3, 0.5)[len(made)]))
            await say(socket, "finish")
            said, _ = await rest(socket)
            made += [one["job"] for one in said if one["type"] == "summary"]
    assert len({*made}) == 2
    texts = [keeps.transcript(one)["segments"][0]["text"] for one in made]
    assert ["w299" in one.split() for one in texts] == [True, False]


async def test_kept_session_that_its_client_closes_before_the_summary_becomes_no_job(
    keeps: Server,
) -> None:
    before = len(keeps.jobs())
    async with wire(keeps) as socket:
        await say(socket, "begin", keep=True)
        await socket.send(talk(0.5))
    await heard(keeps, talk(0.5))  # by then the other is over
    assert len(keeps.jobs()) == before


async def test_kept_session_whose_engine_fails_is_a_job_with_its_finals_recording_and_a_warning(
    keeps: Server,
) -> None:
    before = {one["id"] for one in keeps.jobs()}
    fine, deadly = talk(0.3), talk(DEADLY)
    async with wire(keeps) as socket:
        await say(socket, "begin", keep=True)
        await socket.send(fine)
        final = await next_of(socket, "final")
        await socket.send(deadly)
        said, _ = await rest(socket, leave=False)
    assert said[-1]["code"] == "engine_crashed"
    (made,) = {one["id"] for one in keeps.jobs()} - before
    assert (said[-2]["type"], said[-2]["job"]) == ("summary", made)
    result = keeps.transcript(made)
    assert [one["text"] for one in result["segments"]] == [final["segment"]["text"]]
    about = result["metadata"]
    assert [one["code"] for one in about["warnings"]] == ["engine_crashed"]
    assert final["segment"]["end_time"] <= about["recognized_s"] < about["duration"]
    assert said[-2]["transcript"]["metadata"]["recognized_s"] == about["recognized_s"]
    assert keeps.client.get(f"/v1/jobs/{made}/audio").content.endswith(fine + deadly)


def test_grpc_session_with_speech_becomes_a_job_with_grpc_keep_on_even_if_cancelled(
    keeps: Server,
) -> None:
    def new() -> list[dict[str, Any]]:
        return [one for one in keeps.jobs() if one["id"] not in before]

    before = {one["id"] for one in keeps.jobs()}
    raw = talk(0.3, 0.1)
    with GrpcClient(keeps.health()["grpc_port"]) as client:
        client.create("silent")
        assert not client.say("silent", b"").number
        assert new() == []

        client.create("whole")
        finals = [one.text for one in client.say("whole", raw).finals]
        (whole,) = new()
        assert [one["text"] for one in keeps.transcript(whole["id"])["segments"]] == finals
        audio = keeps.client.get(f"/v1/jobs/{whole['id']}/audio").content
        assert audio.endswith(raw)

        before.add(whole["id"])
        client.create("cut off")
        chunks = chunks_of("cut off", raw, then=lambda: True)
        call = client.open((one.SerializeToString() for one in chunks), "cut off")
        assert next(one for one in call if one.is_final).text == finals[0]
        call.cancel()
        (cut,) = wait_until(new, "it is a job")
        assert keeps.transcript(cut["id"])["segments"][0]["text"] == finals[0]
        assert keeps.client.get(f"/v1/jobs/{cut['id']}/audio").is_success
        wait_until(lambda: client.creates("cut off"), "its id is free again")


def test_kept_session_survives_a_restart_under_the_id_its_client_has(tmp_path: Path) -> None:
    recording = tmp_path / "talk.wav"
    samples = np.frombuffer(talk(0.3), "<i2")
    soundfile.write(recording, samples, 16_000, subtype="PCM_16")
    home = tmp_path / "home"
    home.mkdir()
    with serving(home) as up, Client(f"http://127.0.0.1:{up.port}") as client:
        said = list(client.live_file(recording, pace=0, keep=True))
        summary = said[-1]
        assert isinstance(summary, Summary)
        assert summary.job is not None
        before = up.transcript(summary.job)
    with serving(home) as up:
        assert up.transcript(summary.job) == before
        assert up.client.get(f"/v1/jobs/{summary.job}/audio").status_code == 200


async def test_kept_session_with_nan_samples_has_peaks_and_no_traceback(keeps: Server) -> None:
    sound = np.full(8_000, np.nan, "<f4").tobytes()
    said = await heard(keeps, sound, keep=True, encoding="float32")
    assert keeps.client.get(f"/v1/jobs/{said[-1]['job']}/peaks").status_code == 200
    assert "Traceback" not in keeps.log()
