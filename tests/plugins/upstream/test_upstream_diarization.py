"""Who speaks in a recording that is sent in chunks: told apart once, here, over all of it."""

from typing import Any

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from hypothesis import given
from hypothesis import strategies as st
from upstream_engine_samples import RATE, Engine, Sound
from wheel_recordings import clip

from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_models import load_models
from sidecar.plugins.upstream import audio_chunks, upstream_client, upstream_transcription
from sidecar.plugins.upstream.audio_chunks import (
    ChunkResult,
    assign_speakers,
    even_chunk_s,
)
from sidecar.plugins.upstream.sidecar_dialect import sidecar_dialect
from sidecar.plugins.upstream.upstream_dialect import UpstreamAnswer
from sidecar.plugins.upstream.upstream_transcription import UpstreamDiarization
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment, Word

PIECE_S = 18.0


@pytest.fixture(scope="module")
def talk() -> Sound:
    """Three people, 24 s at 16 bit: two chunks."""
    samples = np.concatenate([clip("endgame_nagg_nell")[: 14 * RATE], clip("two_cities")])
    samples = samples[: 24 * RATE]
    return Sound((np.rint(samples * 32768).clip(-32768, 32767) / 32768).astype(np.float32))


@pytest.fixture(scope="module")
def turns_of_one_machine(talk: Sound) -> list[SpeakerTurn]:
    """What one machine makes of all of it."""
    diarizer = Diarizer(load_models())
    diarizer.feed(talk.samples)
    diarizer.finish()
    return diarizer.turns


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[UpstreamDiarization]:
    """What told voices apart here."""
    found: list[UpstreamDiarization] = []

    class Kept(UpstreamDiarization):
        def __init__(self, *values: Any) -> None:
            super().__init__(*values)
            found.append(self)

        def close(self) -> None:
            self.told = self.known_turns()
            super().close()

    monkeypatch.setattr(upstream_transcription, "UpstreamDiarization", Kept)
    return found


def field(body: bytes, name: str) -> str:
    """A field of a form, "" where it has none."""
    _, _, rest = body.partition(f'name="{name}"\r\n\r\n'.encode())
    return rest.partition(b"\r\n")[0].decode()


def asked(proxy: FaultyProxy) -> list[tuple[str, str]]:
    """Whether speakers and words were asked for, of each chunk."""
    return [(field(body, "diarize"), field(body, "words")) for body in proxy.posts]


@pytest.mark.parametrize("by_voices", [True, False])
def test_speakers_equal_those_of_one_machine_over_all_chunks(
    by_voices: bool,
    proxy: FaultyProxy,
    talk: Sound,
    turns_of_one_machine: list[SpeakerTurn],
    kept: list[UpstreamDiarization],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether a node tells voices apart as this service does, or has labels of its own."""
    if not by_voices:
        other = sidecar_dialect(RATE)
        monkeypatch.setattr(upstream_client, "sidecar_dialect_of", lambda health: other)
    found = Engine(proxy.url, proxy.url, piece_s=PIECE_S).transcript(talk)
    assert asked(proxy) == [("false", "true") if by_voices else ("true", "")] * 2
    (there,) = kept
    assert there.told == turns_of_one_machine  # type: ignore[attr-defined]
    assert found.diarized
    assert found.notices == ()
    assert {one.words for one in found.segments} == {()}  # no client has asked for them
    assert found.duration == pytest.approx(len(talk.samples) / RATE)
    assert sum(one.end - one.start for one in found.segments) == pytest.approx(
        found.duration, abs=0.01
    )


def test_upstream_is_asked_to_diarize_only_whole_recordings_or_if_this_service_cannot(
    proxy: FaultyProxy,
    talk: Sound,
    kept: list[UpstreamDiarization],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Engine(proxy.url, proxy.url).transcript(Sound(talk.samples[: 5 * RATE]))
    Engine(proxy.url, proxy.url, piece_s=PIECE_S).transcript(talk, diarize=False)
    monkeypatch.setattr(upstream_transcription, "shared_speaker_models", lambda: None)
    Engine(proxy.url, proxy.url, piece_s=PIECE_S).transcript(talk)
    assert asked(proxy) == [("true", ""), *[("false", "")] * 2, *[("true", "")] * 2]
    assert not kept


@pytest.mark.parametrize(
    ("counts", "sent"),
    [
        ({"num_speakers": 3}, ("", "", "3")),
        ({"min_speakers": 2, "max_speakers": 4}, ("", "", "4")),
        ({"min_speakers": 2}, ("", "", "")),
    ],
)
def test_number_of_speakers_of_a_recording_is_only_the_maximum_of_each_chunk(
    counts: dict[str, int], sent: tuple[str, ...], proxy: FaultyProxy, talk: Sound
) -> None:
    def asked_counts() -> list[tuple[str, ...]]:
        names = "num_speakers", "min_speakers", "max_speakers"
        return [tuple(field(body, name) for name in names) for body in proxy.posts]

    Engine(proxy.url, proxy.url, piece_s=PIECE_S).transcript(talk, **counts)
    assert asked_counts() == [sent] * 2
    Engine(proxy.url, proxy.url).transcript(Sound(talk.samples[: 5 * RATE]), num_speakers=1)
    assert asked_counts()[2:] == [("1", "", "")], "a whole recording has all of them"


@pytest.mark.parametrize("diarized", [True, False])
def test_words_of_a_chunk_follow_the_turns_only_if_its_upstream_gave_no_speakers(
    diarized: bool,
) -> None:
    """In the second chunk the node took two people for one."""

    def result(start_s: float, *speakers: int) -> ChunkResult:
        segments = []
        for at, speaker in enumerate(speakers):
            first = at * 6 / len(speakers)
            words = tuple(
                Word(first + one, first + one + 0.8, f"{start_s + first + one:g}.")
                for one in range(6 // len(speakers))
            )
            text = " ".join(word.text for word in words)
            label = speaker if diarized else None
            segments.append(Segment(first, words[-1].end, text, label, words, words_by="attention"))
        answer = UpstreamAnswer(tuple(segments), diarized=diarized)
        return ChunkResult(start_s, start_s + 6, answer, "box")

    turns = [SpeakerTurn(at, at + 3, label) for at, label in ((0, 7), (3, 8), (6, 8), (9, 7))]
    found = assign_speakers([result(0.0, 0, 1), result(6.0, 0)], turns, diarize=True)
    texts = [(one.text, one.speaker) for one in found]
    first = [("0. 1. 2.", 0), ("3. 4. 5.", 1)]
    if not diarized:
        assert texts == [*first, ("6. 7. 8.", 1), ("9. 10. 11.", 0)]
    else:
        assert texts[:2] == first
        assert [text for text, _ in texts[2:]] == ["6. 7. 8. 9. 10. 11."]


def quiet(seconds: float, rate: int) -> Sound:
    dice = np.random.default_rng(5)
    return Sound((dice.integers(-99, 99, round(seconds * rate)) / 32768).astype(np.float32), rate)


@given(
    total_s=st.floats(1, 40_000),
    upstreams=st.integers(1, 12),
    longest_s=st.sampled_from([60.0, 600.0, 3600.0]),
)
def test_chunks_have_equal_length_and_a_number_that_fits_the_upstreams(
    total_s: float, upstreams: int, longest_s: float
) -> None:
    even = even_chunk_s(total_s, upstreams, longest_s)
    if even is None:
        assert upstreams == 1 or total_s < 360 or longest_s == 60
        return
    count = round(total_s / even)
    assert total_s >= 180
    assert even >= 179.9 or count <= upstreams
    assert even + 20 <= longest_s
    assert count < upstreams or count % upstreams == 0


def test_recording_is_cut_into_equal_chunks_for_its_upstreams_unless_too_short() -> None:
    assert even_chunk_s(3600.0, 4, 3600.0) == 300.0
    assert even_chunk_s(600.0, 4, 3600.0) == 200.0
    assert even_chunk_s(359.0, 4, 3600.0) is None
    assert even_chunk_s(100.0, 4, 3600.0) is None
    assert even_chunk_s(None, 4, 3600.0) is None
    assert even_chunk_s(3600.0, 1, 3600.0) is None
    lengths = [
        one.duration_s
        for one in audio_chunks.cut_into_chunks(quiet(1799.5, 100), 100, 3600.0, even=300.0)
    ]
    assert len(lengths) == 6
    assert all(abs(one - 300) <= 20 for one in lengths)
