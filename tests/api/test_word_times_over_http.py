"""Times of words on the wires, from an engine that tells none: guessed, and said so."""

from typing import Any

from service_process import Server


def result(server: Server, voice: bytes, **fields: str) -> dict[str, Any]:
    response = server.post(voice, **fields)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_words_without_engine_times_are_spread_over_their_segment_if_requested(
    server: Server, voice: bytes
) -> None:
    asked, unasked = result(server, voice, words="true"), result(server, voice)
    assert asked["metadata"]["words_by"] == "spread"
    for segment, plain in zip(asked["segments"], unasked["segments"], strict=True):
        assert " ".join(word["text"] for word in segment["words"]) == segment["text"]
        assert segment["words"][0]["start_time"] == segment["start_time"]
        assert segment["words"][-1]["end_time"] == segment["end_time"]
        assert segment["words_by"] == "spread"
        assert {**plain, "words": segment["words"], "words_by": "spread"} == segment
    assert "words_by" not in unasked["metadata"]
