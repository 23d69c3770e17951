"""Recordings that Microsoft's streaming server for VibeVoice-ASR-Streaming transcribes."""

import numpy as np
import pytest
from streaming_stand_in import StreamingStandIn
from upstream_engine_samples import Engine, Sound
from upstream_stand_ins import VllmStandIn

from sidecar import errors
from sidecar.interfaces.engine_interface import UpstreamOptions
from sidecar.plugins.upstream.chunk_requests import ChunkRequests


@pytest.fixture(scope="module")
def noise() -> Sound:
    return Sound(np.random.default_rng(7).normal(0, 0.05, 12 * 24_000).astype(np.float32), 24_000)


def dialect_at(url: str, kind: str = "auto") -> str:
    requests = ChunkRequests(UpstreamOptions((url,), dialect=kind))
    (upstream,) = requests.upstreams
    return requests.run(upstream.ready()).result().name


def test_streaming_server_is_told_from_vllm_by_its_configuration() -> None:
    with StreamingStandIn() as streaming, VllmStandIn() as vllm:
        assert dialect_at(streaming.url) == "vllm-streaming"
        assert dialect_at(streaming.url, "vllm-streaming") == "vllm-streaming"
        assert dialect_at(streaming.url, "vllm") == "vllm"
        assert dialect_at(vllm.url) == "vllm"
        with pytest.raises(errors.SidecarError, match="no streaming server"):
            dialect_at(vllm.url, "vllm-streaming")
        assert not streaming.asked, "it answers without a second of speech"


@pytest.mark.parametrize("chunk_frames", [15, 22])
def test_streaming_server_gets_the_recording_and_the_context_and_its_words_are_aligned(
    noise: Sound, chunk_frames: int
) -> None:
    with StreamingStandIn(chunk_frames=chunk_frames) as there:
        engine = Engine(there.url)
        assert engine.engine.sample_rate == 24_000
        found = engine.transcript(noise, diarize=False, prompt="A talk", hotwords=("Ada",))
        whole = engine.transcript(noise, diarize=False, temperature=0.5)
    assert there.asked == [
        {"context_info": "A talk\nAda"},
        {"temperature": 0.5, "top_p": 0.95},
    ]
    assert len(found.text.split()) == -(-12 * 24_000 // there.chunk)
    assert found.text == whole.text
    assert all(one.words for one in found.segments)
    assert found.segments[-1].end == pytest.approx(12.0)


def test_recording_beyond_the_context_of_a_streaming_server_is_sent_in_parts(noise: Sound) -> None:
    with StreamingStandIn(most_tokens=400) as there:
        engine = Engine(there.url)
        found = engine.transcript(noise, diarize=False)
        first = len(there.asked)
        engine.transcript(noise, diarize=False)
    assert found.notices == ()
    assert found.segments[-1].end == pytest.approx(12.0)
    assert first > len(there.asked) - first, "it has learned what that takes"


def test_two_voices_with_one_label_of_the_model_are_two_speakers(two_voices: Sound) -> None:
    """Two public reports of the released model have one label for everybody."""

    def text(number: int, _: object) -> str:
        return "Speaker 0:" * (not number) + "".join(f" w{number}{at}" for at in range(8))

    with StreamingStandIn(text) as there:
        found = Engine(there.url).transcript(two_voices)
    assert (found.diarized, found.num_speakers) == (True, 2)
    assert len(found.text.split()) == 8 * 5


def test_audio_that_a_streaming_server_cannot_take_is_refused_with_its_words() -> None:
    with StreamingStandIn() as there:
        engine = Engine(there.url)
        there.plan.extend(["422", "422"])
        with pytest.raises(errors.SidecarError, match="told to") as caught:
            engine.transcript(Sound(np.zeros(24_000, np.float32), 24_000), diarize=False)
    assert caught.value.fault is errors.Fault.UPSTREAM, "it took no second of speech, either"
