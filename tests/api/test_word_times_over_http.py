"""Times of words on the wires, from an engine that tells none: guessed, and said so."""

from __future__ import annotations

from typing import Any

import pysubs2
import pytest
from service_process import Server

from sidecar.transcripts.subtitle_cues import MAX_LINE_COLUMNS
from sidecar.transcripts.transcript_formats import SUBTITLES


def result(server: Server, voice: bytes, **fields: str) -> dict[str, Any]:
    response = server.post(voice, **fields)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_words_are_returned_on_request_with_their_origin(server: Server, voice: bytes) -> None:
    asked, unasked = result(server, voice, words="true"), result(server, voice)
    assert asked["metadata"]["words_by"] == "spread"
    for segment, plain in zip(asked["segments"], unasked["segments"], strict=True):
        assert " ".join(word["text"] for word in segment["words"]) == segment["text"]
        assert segment["words"][0]["start_time"] == segment["start_time"]
        assert segment["words"][-1]["end_time"] == segment["end_time"]
        assert segment["words_by"] == "spread"
        assert {**plain, "words": segment["words"], "words_by": "spread"} == segment
    assert "words_by" not in unasked["metadata"]


@pytest.mark.parametrize("fmt", SUBTITLES)
def test_job_has_subtitles_that_players_accept(server: Server, voice: bytes, fmt: str) -> None:
    sent = server.client.post(
        "/v1/jobs", files={"audio": ("a.wav", voice)}, data={"words": "yes"}
    ).raise_for_status()
    job_id = sent.json()["id"]
    events = server.client.get(f"/v1/jobs/{job_id}/events").text
    assert '"words_by":"spread"' in events.replace('": ', '":')
    text = server.client.get(f"/v1/jobs/{job_id}/transcript", params={"format": fmt}).text
    shown = pysubs2.SSAFile.from_string(text, format_=fmt)
    assert len(shown) >= 3
    lines = [line for one in shown for line in one.plaintext.split("\n")]
    assert max(map(len, lines)) <= MAX_LINE_COLUMNS
