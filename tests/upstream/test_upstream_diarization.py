"""Nodes say what the voices of their pieces are like; who speaks is told apart once, in front."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from faulty_proxy import FaultyProxy
from hypothesis import given
from hypothesis import strategies as st
from service_process import Server
from upstream_engine_samples import RATE, Engine, Sound
from upstream_stand_ins import OpenAiStandIn
from wheel_recordings import clip

from sidecar.diarization import window_embeddings
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_models import load_models
from sidecar.transcripts.speaker_embeddings import (
    BLOCK_MARGIN_S,
    BLOCK_S,
    LOCAL_VOICES_FIELD,
    MIN_LAST_S,
    EncodedWindowEmbeddings,
)
from sidecar.transcripts.speaker_turns import SpeakerTurn
from sidecar.transcripts.transcript import Segment, Transcript, Word
from sidecar.upstream import audio_chunks, sidecar_dialect, upstream_client, upstream_transcription
from sidecar.upstream.audio_chunks import (
    MARGIN_S,
    MIN_CHUNK_WITH_MARGIN_S,
    AudioChunk,
    ChunkResult,
    assign_speakers,
    even_chunk_s,
)
from sidecar.upstream.upstream_dialect import UpstreamAnswer
from sidecar.upstream.upstream_transcription import UpstreamDiarization

PIECE_S = 60.0
Lines = list[tuple[float, float, str, int | None]]
ASKS = f'name="{LOCAL_VOICES_FIELD}"'.encode()


def lines(transcript: Transcript) -> Lines:
    return [(one.start, one.end, one.text, one.speaker) for one in transcript.segments]


@pytest.fixture(scope="module")
def talk() -> Sound:
    """Three people, 72 s at 16 bit: two pieces."""
    samples = np.concatenate([clip("endgame_nagg_nell"), clip("two_cities")])
    return Sound((np.rint(samples * 32768).clip(-32768, 32767) / 32768).astype(np.float32))


@pytest.fixture(scope="module")
def alone(talk: Sound) -> list[SpeakerTurn]:
    """What one machine makes of all of it."""
    diarizer = Diarizer(load_models())
    diarizer.feed(talk.samples)
    diarizer.finish()
    return diarizer.turns


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.port) as running:
        yield running


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[UpstreamDiarization]:
    """What told voices apart in front, and pieces short enough for a test."""
    found: list[UpstreamDiarization] = []

    class Kept(UpstreamDiarization):
        def __init__(self, *values: Any) -> None:
            super().__init__(*values)
            found.append(self)

        def close(self) -> None:
            self.told = self._diarizer.turns
            super().close()

    monkeypatch.setattr(upstream_transcription, "UpstreamDiarization", Kept)
    monkeypatch.setattr(upstream_transcription, "MIN_CHUNK_WITH_MARGIN_S", 0.0)
    return found


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of each piece whose voices the front hears itself."""
    found: list[float] = []
    hear = window_embeddings.embed_windows

    def counted(models: Any, blocks: Any, *more: Any) -> Any:
        blocks = list(blocks)
        found.append(sum(map(len, blocks)) / RATE)
        return hear(models, blocks, *more)

    monkeypatch.setattr(window_embeddings, "embed_windows", counted)
    return found


@pytest.mark.slow
def test_who_speaks_is_what_one_machine_says_though_nodes_hear_it_or_send_what_is_no_vector(
    start: Callable[..., Engine],
    proxy: FaultyProxy,
    talk: Sound,
    alone: list[SpeakerTurn],
    kept: list[UpstreamDiarization],
    here: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = start(proxy.url, proxy.url, piece_s=PIECE_S)
    right = engine.transcript(talk)
    assert len(proxy.posts) == 2
    assert all(ASKS in body for body in proxy.posts)
    assert here == []  # the nodes have done it
    assert kept[-1].told == alone  # type: ignore[attr-defined]
    assert right.diarized
    assert right.notices == ()
    assert {one.words for one in right.segments} == {()}  # guesses that nobody asked for
    assert right.duration == pytest.approx(len(talk.samples) / RATE)
    assert sum(one.end - one.start for one in right.segments) == pytest.approx(
        right.duration, abs=0.01
    )

    given = sidecar_dialect.embeddings_in_answer
    faults = iter(["nan", "nothing"])

    def garbled(body: Any) -> EncodedWindowEmbeddings | None:
        fault, said = next(faults), given(body)
        assert said is not None
        if fault == "nothing":
            return None
        raw = bytearray(base64.b64decode(said.windows))
        raw[-512:] = np.full(256, np.nan, "<f2").tobytes()
        return EncodedWindowEmbeddings(said.form, base64.b64encode(raw).decode())

    monkeypatch.setattr(sidecar_dialect, "embeddings_in_answer", garbled)
    again = engine.transcript(talk)
    assert len(here) == 2
    assert kept[-1].told == alone  # type: ignore[attr-defined]
    assert lines(again) == lines(right)
    assert [one.code for one in again.notices] == ["upstream_voices_refused"]


def test_nobody_is_asked_who_does_not_offer_it_or_where_nobody_wants_speakers(
    start: Callable[..., Engine],
    proxy: FaultyProxy,
    talk: Sound,
    kept: list[UpstreamDiarization],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(proxy.url, proxy.url, piece_s=PIECE_S).transcript(talk, diarize=False)
    start(proxy.url, proxy.url).transcript(Sound(talk.samples[: 5 * RATE]))  # its own will do
    monkeypatch.setattr(upstream_client, "WINDOW_FORMAT", "0-another-build")
    monkeypatch.setattr(UpstreamDiarization, "feed", lambda self, piece: None)
    monkeypatch.setattr(upstream_transcription, "shared_speaker_models", lambda: None)
    start(proxy.url, proxy.url, piece_s=PIECE_S).transcript(talk)
    assert len(proxy.posts) > 4
    assert not [body for body in proxy.posts if ASKS in body]
    with OpenAiStandIn() as other:
        start(other.url).transcript(Sound(talk.samples[: 5 * RATE]))
        assert other.asked
        assert not [said for said in other.asked if LOCAL_VOICES_FIELD in said]


def test_a_server_that_took_all_of_a_piece_for_words_is_asked_without_it_from_then_on(
    start: Callable[..., Engine],
    proxy: FaultyProxy,
    talk: Sound,
    kept: list[UpstreamDiarization],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was restarted into an older build."""
    engine = start(proxy.url, piece_s=PIECE_S)
    monkeypatch.setattr(sidecar_dialect, "LOCAL_VOICES_FIELD", "of_another_build")
    monkeypatch.setattr(
        upstream_transcription.UpstreamDiarization, "take", lambda self, piece, said: None
    )
    found = engine.transcript(talk)
    assert sum(one.end - one.start for one in found.segments) == pytest.approx(
        found.duration, abs=0.01
    )
    without = [body for body in proxy.posts if b"of_another_build" not in body]
    assert len(proxy.posts) == 3  # of the last piece all is words
    assert len(without) in (1, 2)


@pytest.mark.parametrize("same", [True, False])
def test_words_go_to_who_has_the_floor_where_a_piece_had_the_same_means_and_less_to_go_by(
    same: bool,
) -> None:
    """In the second piece the node took two people for one."""

    def heard(start_s: float, *speakers: int) -> ChunkResult:
        samples = np.zeros(6 * RATE, np.int16)
        segments = []
        for at, speaker in enumerate(speakers):
            first = at * 6 / len(speakers)
            words = tuple(
                Word(first + one, first + one + 0.8, f"{start_s + first + one:g}.")
                for one in range(6 // len(speakers))
            )
            text = " ".join(word.text for word in words)
            segments.append(
                Segment(first, words[-1].end, text, speaker, words, words_by="attention")
            )
        said = EncodedWindowEmbeddings("any", "", same)
        answer = UpstreamAnswer(tuple(segments), diarized=True, local_voices=said)
        return ChunkResult(AudioChunk(start_s, samples, RATE, start_s > 0), answer, "box")

    turns = [
        SpeakerTurn(0, 3, 7),
        SpeakerTurn(3, 6, 8),
        SpeakerTurn(6, 9, 8),
        SpeakerTurn(9, 12, 7),
    ]
    found = assign_speakers([heard(0.0, 0, 1), heard(6.0, 0)], turns, diarize=True)
    texts = [(one.text, one.speaker) for one in found]
    first = [("0. 1. 2.", 0), ("3. 4. 5.", 1)]
    if same:
        assert texts == [*first, ("6. 7. 8.", 1), ("9. 10. 11.", 0)]
    else:
        assert texts[:2] == first
        assert [text for text, _ in texts[2:]] == ["6. 7. 8. 9. 10. 11."]


def quiet(seconds: float, rate: int) -> Sound:
    dice = np.random.default_rng(5)
    return Sound((dice.integers(-99, 99, round(seconds * rate)) / 32768).astype(np.float32), rate)


@given(seconds=st.floats(1, 900), longest_s=st.floats(120, 400), even=st.none() | st.just(180.0))
def test_what_is_asked_of_pieces_is_the_whole_recording_once_and_each_has_the_sound_for_it(
    seconds: float, longest_s: float, even: float | None
) -> None:
    rate = 300
    sound = quiet(seconds, rate)
    if even is not None:
        longest_s = max(longest_s, even + 20 + MARGIN_S)
    found = list(audio_chunks.cut_into_chunks(sound, rate, longest_s, even=even, margin=True))
    samples = np.concatenate([one.samples for one in found])
    assert (samples == audio_chunks.to_16_bit(sound.samples)).all()
    border_s = 0.0
    for piece in found:
        asked, sent_s = piece.voices, len(piece.with_margin) / rate
        assert asked is not None
        assert sent_s <= longest_s + 0.1
        assert asked.begins == (piece is found[0])
        assert piece.start_s + asked.first_s == pytest.approx(border_s, abs=0.01)
        assert border_s % BLOCK_S == 0
        assert asked.words_s == piece.duration_s
        assert (asked.until_s is None) == piece.last
        if asked.until_s is not None:
            assert sent_s == pytest.approx(asked.until_s + BLOCK_MARGIN_S, abs=0.01)
            border_s = round(piece.start_s + asked.until_s, 2)
        elif len(found) > 1:
            assert sent_s - asked.first_s >= MIN_LAST_S


@given(
    total_s=st.floats(1, 40_000),
    upstreams=st.integers(1, 12),
    longest_s=st.sampled_from([60.0, 600.0, 3600.0]),
)
def test_pieces_are_of_one_length_as_many_as_give_all_the_same_or_as_few_as_may_be(
    total_s: float, upstreams: int, longest_s: float
) -> None:
    even = even_chunk_s(total_s, upstreams, longest_s)
    if even is None:
        assert upstreams == 1 or total_s < 360 or longest_s == 60
        return
    count = round(total_s / even)
    assert total_s >= 180
    assert even >= 179.9 or count <= upstreams
    assert even + 20 + MARGIN_S <= longest_s
    assert count < upstreams or count % upstreams == 0


def test_an_hour_over_four_is_twelve_pieces_and_ten_minutes_are_three() -> None:
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


def test_what_is_sent_for_words_alone_has_no_margin(talk: Sound) -> None:
    first, _ = audio_chunks.cut_into_chunks(talk, RATE, PIECE_S, margin=True)
    read, _ = soundfile.read(io.BytesIO(first.flac()), dtype="int16")
    more, _ = soundfile.read(io.BytesIO(first.flac(margin=True)), dtype="int16")
    assert len(read) == len(first.samples) < len(more)
    assert (more == first.with_margin).all()
    assert MIN_CHUNK_WITH_MARGIN_S >= 4 * MARGIN_S
    kept = ChunkResult(
        first,
        UpstreamAnswer((), local_voices=EncodedWindowEmbeddings("any", "A" * 99, True)),
        "box",
    ).settled()
    assert kept.piece.samples.strides == (0,)  # nothing of the sound is held
    assert (kept.piece.start_s, kept.piece.end_s) == (first.start_s, first.end_s)
    assert kept.by_voices
    assert kept.answer.local_voices == EncodedWindowEmbeddings("any", "", True)
