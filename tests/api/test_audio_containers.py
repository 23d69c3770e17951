"""Recordings as people have them: every container, codec, rate and channel count in use."""

from __future__ import annotations

import pytest
from recordings import FORMATS, SECONDS, Studio
from service_process import Server

TOLERANCE_S = 0.15


@pytest.mark.parametrize("name", FORMATS)
def test_a_recording_in_this_format_is_transcribed_at_its_true_length(
    name: str, server: Server, studio: Studio
) -> None:
    response = server.post(studio.bytes(name), studio.path(name).name)
    assert response.status_code == 200, response.text[:500]
    body = response.json()
    assert body["metadata"]["duration"] == pytest.approx(SECONDS, abs=TOLERANCE_S)
    assert body["metadata"]["warnings"] == []
    assert body["segments"]
    assert not server.leftovers()


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("mp3-cbr", "voice.wav"),
        ("wav-s16", "voice.mp3"),
        ("ogg-opus", "voice.m4a"),
        ("m4a", "voice.ogg"),
        ("flac", "voice.txt"),
        ("webm-opus", "voice"),
        ("wav-s16", "playlist.m3u8"),
    ],
)
def test_the_content_counts_and_not_the_name(
    name: str, lie: str, server: Server, studio: Studio
) -> None:
    honest = server.post(studio.bytes(name), studio.path(name).name)
    response = server.post(studio.bytes(name), lie)
    assert response.status_code == 200, response.text[:500]
    assert response.json()["segments"] == honest.json()["segments"]


@pytest.mark.parametrize("name", ["wav-s16", "m4a", "ogg-opus"])
def test_a_file_by_its_path_gives_what_its_upload_gives(
    name: str, server: Server, studio: Studio
) -> None:
    uploaded = server.post(studio.bytes(name))
    named = server.post_path(str(studio.path(name)))
    assert named.status_code == 200, named.text
    assert named.json()["metadata"]["duration"] == uploaded.json()["metadata"]["duration"]


def test_an_mp4_whose_index_lies_at_the_end_works(server: Server, studio: Studio) -> None:
    audio = studio.bytes("m4a")
    assert audio.index(b"moov") > audio.index(b"mdat")
    assert server.post(audio).status_code == 200


def test_silence_is_a_success_of_its_true_length(server: Server, studio: Studio) -> None:
    silence = studio.make("silence.wav", "-f", "lavfi", "-t", 2, "-i", "anullsrc=r=16000:cl=mono")
    response = server.post(silence.read_bytes())
    assert response.status_code == 200, response.text[:500]
    assert response.json()["metadata"]["duration"] == pytest.approx(2.0, abs=0.01)
