"""A microphone for each person: each channel is transcribed for itself."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from moonshine_voice import get_assets_path
from recordings import wav
from service_process import Server, StartServer, check_problem
from vibevoice_asr_client import Client

from sidecar.audio.audio_decoder import decode_audio_file

RATE, SECONDS = 16_000, 10
FAILED, BEST_OF_TIMES = "try again, fail again, fail better", "It was the best of times."


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("embedded"), engine="moonshine") as running:
        yield running


def recording(*channels: np.ndarray) -> bytes:
    samples = np.stack(channels, axis=1) * 32767
    return wav(samples.astype("<i2").tobytes(), channels=len(channels))


@pytest.fixture(scope="module")
def voices() -> tuple[np.ndarray, np.ndarray]:
    """Two people, for ten seconds each."""
    files = (Path(get_assets_path()) / name for name in ("beckett.wav", "two_cities.wav"))
    left, right = (decode_audio_file(file, RATE) for file in files)
    return left[: SECONDS * RATE], right[: min(len(left), SECONDS * RATE)]


def warnings(body: dict[str, dict[str, list[dict[str, str]]]]) -> list[str]:
    return [one["code"] for one in body["metadata"]["warnings"]]


def test_people_who_talk_at_once_in_separate_channels_have_their_own_words_and_names(
    embedded: Server, voices: tuple[np.ndarray, np.ndarray]
) -> None:
    body = embedded.post(
        recording(*voices), channels="separate", channel_names="Agent, Caller"
    ).json()
    said = {"Agent": "", "Caller": ""}
    for one in body["segments"]:
        said[one["name"]] = f"{said[one['name']]} {one['text']}"
        assert "words" not in one, "none were asked for"
    assert FAILED in said["Agent"]
    assert BEST_OF_TIMES in said["Caller"]
    starts = [one["start_time"] for one in body["segments"]]
    assert starts == sorted(starts)
    assert len(starts) > 2, "each is cut where the other begins"
    about = body["metadata"]
    assert (about["num_speakers"], about["warnings"]) == (2, [])
    assert about["duration"] == pytest.approx(SECONDS, abs=0.1)
    assert [one["name"] for one in about["speakers"]] == ["Agent", "Caller"]


def test_stereo_of_one_person_a_channel_mixed_to_mono_warns_that_channels_differ(
    embedded: Server, voices: tuple[np.ndarray, np.ndarray]
) -> None:
    left, right = voices
    turns = recording(np.concatenate((left, 0 * right)), np.concatenate((0 * left, right)))
    assert warnings(embedded.post(turns).json()) == ["channels_differ"]
    body = embedded.post(turns, channels="separate").json()
    assert [one["name"] for one in body["segments"]] == ["Left", "Right"]
    assert warnings(body) == []


def test_streamed_segments_of_separate_channels_are_those_of_the_transcript(
    embedded: Server, voices: tuple[np.ndarray, np.ndarray]
) -> None:
    response = embedded.client.post(
        "/transcribe",
        files={"audio": recording(*voices)},
        data={"channels": "separate", "diarize": "false"},
        headers={"Accept": "application/x-ndjson"},
    )
    *lines, last = map(json.loads, filter(None, response.text.splitlines()))
    streamed = [line["segment"]["text"] for line in lines]
    assert streamed == [one["text"] for one in last["result"]["segments"]]
    assert {line["segment"]["speaker"] for line in lines} == {"Speaker_0", "Speaker_1"}


TONE = wav(b"\x10\x20" * RATE)
TWO = wav(b"\x10\x20\x00\x10" * 10 * RATE, channels=2)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(TONE, "channel_single", id="mono"),
        pytest.param(wav(bytes(range(256)) * 99, bits=8), "channel_single", id="8-bit"),
        pytest.param(
            wav(np.repeat(np.arange(RATE, dtype="<i2"), 2).tobytes(), channels=2),
            "channels_same",
            id="twice-the-same",
        ),
    ],
)
def test_recording_without_separate_channels_is_transcribed_once_with_a_warning(
    content: bytes, code: str, server: Server
) -> None:
    body = server.post(content, channels="separate").json()
    assert warnings(body) == [code]
    assert body["segments"] == server.post(content).json()["segments"]


@pytest.mark.parametrize(
    ("content", "mode", "channels"),
    [
        pytest.param(TWO, "separate", 2, id="separate"),
        pytest.param(TWO, "mix", None, id="mixed"),
        pytest.param(TONE, "separate", None, id="mono"),
    ],
)
def test_body_of_job_has_channels_only_if_they_are_separate(
    content: bytes, mode: str, channels: int | None, server: Server
) -> None:
    with Client(server.url) as client:
        job = client.submit(content, channels=mode)
        listed = next(one for one in client.jobs().jobs if one.id == job.id)
    assert (job.channels, listed.channels) == (channels or 1, channels or 1)
    bodies = job.raw, listed.raw, server.job(job.id)
    assert [body.get("channels") for body in bodies] == 3 * [channels]


def test_names_of_channels_of_a_mono_recording_are_said_to_be_unused(server: Server) -> None:
    body = server.post(TONE, channels="separate", channel_names="Agent, Caller").json()
    (warning,) = body["metadata"]["warnings"]
    assert (warning["code"], "'channel_names'" in warning["message"]) == ("channel_single", True)


def test_invalid_channel_options_are_refused(server: Server) -> None:
    many = wav(bytes(range(18)) * RATE, channels=9)
    for content, fields, said in (
        (TWO, {"channels": "both"}, "mix, separate"),
        (TWO, {"channel_names": "Agent"}, "the channels are mixed"),
        (TWO, {"channels": "separate", "channel_names": "a,b,c"}, "2 channels"),
        (TWO, {"channels": "separate", "channel_names": "a" * 201}, "200 characters"),
        (TWO, {"channels": "separate", "channel_names": "a," * 9}, "more than 8 names"),
        (many, {"channels": "separate"}, "9 channels; at most 8"),
    ):
        response = server.post(content, **fields)
        check_problem(response, 422, "field_invalid")
        assert said in response.text
    assert server.post(TWO, channels="MIX", channel_names="").status_code == 200


def test_channels_that_are_too_long_together_are_refused(start_server: StartServer) -> None:
    server = start_server(max_audio_hours=15 / 3600)
    assert server.post(TWO).status_code == 200
    check_problem(server.post(TWO, channels="separate"), 413, "audio_too_long")
