"""Recordings as people have them: every container, codec, rate and channel count in use."""

from pathlib import Path

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


def film_of_three_tracks(studio: Studio, suffix: str) -> Path:
    """The second track is a second longer than the others."""
    return studio.make(
        f"three-tracks.{suffix}",
        *("-i", studio.voice, "-filter_complex", "[0:a]apad=pad_dur=1[long]"),
        *("-map", "0:a", "-map", "[long]", "-map", "0:a", "-ac", 2, "-ar", 48_000),
        *("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger"),
        *("-disposition:a:0", "0", "-disposition:a:1", "default"),
    )


def test_film_of_several_audio_tracks_is_transcribed_with_a_warning_that_names_them(
    server: Server, studio: Studio
) -> None:
    film = film_of_three_tracks(studio, "mkv")
    (warning,) = server.post(film.read_bytes()).json()["metadata"]["warnings"]
    assert warning["code"] == "audio_tracks"
    assert "3 audio tracks" in warning["message"]
    assert "track 1 (eng), not of 2 (ger), 3" in warning["message"]
    assert "marks track 2 (ger)" in warning["message"]


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "ts"])
@pytest.mark.parametrize(("track", "seconds"), [(1, SECONDS), (2, SECONDS + 1), (3, SECONDS)])
def test_selected_audio_track_gives_the_duration_and_no_warning(
    suffix: str, track: int, seconds: float, server: Server, studio: Studio
) -> None:
    film = film_of_three_tracks(studio, suffix)
    about = server.post(film.read_bytes(), track=str(track)).json()["metadata"]
    assert (about["duration"], about["warnings"]) == (pytest.approx(seconds, abs=TOLERANCE_S), [])


def test_absent_or_invalid_track_is_refused_with_the_tracks_or_values_that_are_valid(
    server: Server, studio: Studio
) -> None:
    film = film_of_three_tracks(studio, "mkv").read_bytes()
    sound = studio.bytes("wav-s16")
    for content, track, said in (
        (film, "4", "1 (eng), 2 (ger), 3."),
        (sound, "2", "are: 1."),
        (film, "0", "from 1 to"),
        (film, "eng", "whole number"),
    ):
        response = server.post(content, track=track)
        assert (response.status_code, response.json()["code"]) == (422, "field_invalid")
        assert said in response.json()["detail"]
    assert server.post(sound, track="1").status_code == 200


def test_estimate_lists_the_audio_tracks_of_a_film(server: Server, studio: Studio) -> None:
    film = {"audio": film_of_three_tracks(studio, "mkv").read_bytes()}
    body = server.client.post("/v1/estimate", files=film).json()
    found = [(one["track"], one["language"], one["default"]) for one in body["tracks"]]
    assert found == [(1, "eng", False), (2, "ger", True), (3, None, False)]
    assert [one["channels"] for one in body["tracks"]] == [2, 2, 2]
    longer = server.client.post("/v1/estimate", files=film, data={"track": "2"}).json()
    assert longer["audio_seconds"] >= body["audio_seconds"]
    assert "tracks" not in server.client.post("/v1/estimate", json={"duration": 3}).json()


def test_estimate_for_a_recording_of_unknown_length_is_null_and_says_why(
    server: Server, studio: Studio
) -> None:
    chain = 2 * studio.bytes("ogg-opus")
    body = server.client.post("/v1/estimate", files={"audio": chain}).json()
    assert (body["audio_seconds"], body["seconds"]) == (None, None)
    assert body["sentence"].endswith("the file does not say how long it is")
