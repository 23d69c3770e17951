"""What a node says of the voices of a piece: to who asks, for as long as the answer takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from recordings import wav
from service_process import PATIENCE_S, Server
from wheel_recordings import RATE, clip

from sidecar.diarization.diarizer import STEP_S
from sidecar.diarization.speaker_models import load_models
from sidecar.diarization.window_embeddings import decode_windows, embed_windows, window_starts
from sidecar.transcripts.speaker_embeddings import (
    LOCAL_VOICES_FIELD,
    WINDOW_FORMAT,
    EncodedWindowEmbeddings,
    WindowEmbeddingsRequest,
)

LENGTH_S = 20.0
ASKED = WindowEmbeddingsRequest(words_s=12.5, until_s=10.0, begins=True)


@pytest.fixture(scope="module")
def samples() -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    sound = clip("endgame_nagg_nell")[: round(LENGTH_S * RATE)]
    return np.rint(sound * 32768).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def piece(samples: np.ndarray[tuple[int], np.dtype[np.int16]]) -> bytes:
    return wav(samples.tobytes())


def test_who_asks_is_told_what_the_windows_are_and_words_end_where_they_are_wanted(
    server: Server, piece: bytes, samples: np.ndarray[tuple[int], np.dtype[np.int16]]
) -> None:
    assert server.health()[LOCAL_VOICES_FIELD] == WINDOW_FORMAT
    body = server.post(piece, local_voices=ASKED.to_text()).json()
    assert body["segments"][-1]["end_time"] == 12.5
    assert body["metadata"]["duration"] == 12.5
    begins = window_starts(ASKED, len(samples), STEP_S)
    assert [at / RATE for at in begins] == [0, 1.25, 2.5, 5.0, 7.5]
    told = decode_windows(EncodedWindowEmbeddings(**body[LOCAL_VOICES_FIELD]), begins)
    sound = [samples.astype(np.float32) / np.float32(32768)]
    for one, other in zip(told, embed_windows(load_models(), sound, ASKED, STEP_S), strict=True):
        assert (one.packed == other.packed).all()
        assert np.allclose(one.vectors, other.vectors, atol=2e-3)  # last digits are a processor's


@pytest.mark.slow
def test_nobody_else_is_told_and_no_job_and_no_file_has_any_of_it(
    start_server: Callable[..., Server], piece: bytes
) -> None:
    keeps = start_server(keep_jobs="true", journal_key="5f" * 32)
    asked = {LOCAL_VOICES_FIELD: ASKED.to_text()}
    assert LOCAL_VOICES_FIELD not in keeps.post(piece).json()
    assert LOCAL_VOICES_FIELD not in keeps.post(piece, diarize="false", **asked).json()
    other = {"local_voices": json.dumps({"form": "0-another-build"})}
    assert LOCAL_VOICES_FIELD not in keeps.post(piece, **other).json()
    windows = keeps.post(piece, **asked).json()[LOCAL_VOICES_FIELD]["windows"]
    answer = keeps.client.post(
        "/transcribe",
        files={"audio": piece},
        data=asked,
        headers={"Prefer": "respond-async"},
    )
    job = keeps.wait_state(answer.json()["id"], "done")
    assert LOCAL_VOICES_FIELD not in keeps.transcript(job["id"])
    assert [one["id"] for one in keeps.jobs()] == [answer.json()["id"]]
    texts = [
        keeps.client.get(path).text for path in ("/v1/jobs", f"/v1/jobs/{job['id']}", "/metrics")
    ]
    keeps.process.terminate()  # all is written then, and no file goes while it is looked for
    assert keeps.process.wait(PATIENCE_S) == 0
    texts += [path.read_bytes().decode("latin-1") for path in keeps.home.rglob("*.*")]
    assert len(texts) > 3
    assert not [text for text in texts if windows[1000:1100] in text]


@pytest.mark.slow
def test_those_that_are_heard_in_company_are_told_as_well(
    start_server: Callable[..., Server], piece: bytes
) -> None:
    slow = start_server(scripted_speed=8)
    with ThreadPoolExecutor(3) as clients:
        answers = list(
            clients.map(lambda _: slow.post(piece, local_voices=ASKED.to_text()).json(), range(3))
        )
    assert len({answer[LOCAL_VOICES_FIELD]["windows"] for answer in answers}) == 1
    assert {answer["metadata"]["duration"] for answer in answers} == {12.5}


@pytest.mark.parametrize(
    "wrong",
    [
        "yes",
        "[]",
        "{}",
        "[" * 10_000,
        json.dumps({"form": 7}),
        json.dumps({"form": WINDOW_FORMAT}),
        json.dumps(
            {"form": WINDOW_FORMAT, "words_s": 9, "first_s": -1, "until_s": None, "begins": True}
        ),
        json.dumps(
            {"form": WINDOW_FORMAT, "words_s": 9, "first_s": 0, "until_s": "x", "begins": True}
        ),
        json.dumps({"form": WINDOW_FORMAT, "words_s": 10**400, "first_s": 0, "begins": True}),
        json.dumps({"form": WINDOW_FORMAT, "words_s": float("nan"), "first_s": 0, "begins": True}),
        json.dumps(
            {"form": WINDOW_FORMAT, "words_s": 9, "first_s": 0, "until_s": None, "begins": 1}
        ),
    ],
)
def test_what_means_nothing_is_refused(server: Server, piece: bytes, wrong: str) -> None:
    answer = server.post(piece, local_voices=wrong)
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "field_invalid"
    assert LOCAL_VOICES_FIELD in answer.json()["detail"]


@pytest.mark.parametrize(("first_s", "until_s"), [(19.9, None), (3600.0, None), (15.0, 2.0)])
def test_what_cannot_be_made_of_a_piece_costs_no_words(
    server: Server, piece: bytes, first_s: float, until_s: float | None
) -> None:
    asked = WindowEmbeddingsRequest(5.0, first_s, until_s)
    body = server.post(piece, local_voices=asked.to_text()).json()
    assert body["segments"][-1]["end_time"] == 5.0
    assert LOCAL_VOICES_FIELD not in body
    assert server.post(piece).status_code == 200
