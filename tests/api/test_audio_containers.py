"""Recordings as people have them: every container, codec, rate and channel count in use."""

from __future__ import annotations

import pytest
from recordings import FORMATS, SECONDS, Studio
from service_process import Server

TOLERANCE_S = 0.15


@pytest.mark.parametrize("name", FORMATS)
def test_recording_in_every_format_is_transcribed_at_its_true_length(
    name: str, server: Server, studio: Studio
) -> None:
    response = server.post(studio.bytes(name), studio.path(name).name)
    assert response.status_code == 200, response.text[:500]
    body = response.json()
    assert body["metadata"]["duration"] == pytest.approx(SECONDS, abs=TOLERANCE_S)
    assert body["metadata"]["warnings"] == []
    assert body["segments"]
    assert not server.leftovers()


def test_other_audio_tracks_are_named_in_a_warning(server: Server, studio: Studio) -> None:
    film = studio.make(
        "three-tracks.mkv",
        *("-i", studio.voice, "-map", "0:a", "-map", "0:a", "-map", "0:a", "-c:a", "libopus"),
        *("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger"),
        *("-disposition:a:0", "0", "-disposition:a:1", "default"),
    )
    (warning,) = server.post(film.read_bytes()).json()["metadata"]["warnings"]
    assert warning["code"] == "audio_tracks"
    assert "3 audio tracks" in warning["message"]
    assert "track 1 (eng), not of 2 (ger), 3" in warning["message"]
    assert "marks track 2 (ger)" in warning["message"]


def test_recording_that_does_not_say_its_length_has_an_estimate_with_the_reason(
    server: Server, studio: Studio
) -> None:
    chain = 2 * studio.bytes("ogg-opus")
    body = server.client.post("/v1/estimate", files={"audio": chain}).json()
    assert (body["audio_seconds"], body["seconds"]) == (None, None)
    assert body["sentence"].endswith("the file does not say how long it is")
