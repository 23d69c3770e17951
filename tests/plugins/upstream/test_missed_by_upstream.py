"""Speech that an upstream has no words for is sent again in shorter chunks, or told."""

from pathlib import Path

import moonshine_voice
import pytest
import soundfile
import soxr
from engine_requests import transcript_of
from marked_upstreams import SEGMENTS, WORDS, MarkedUpstream, marked, words_until
from test_words_of_upstreams import streamed_words
from upstream_engine_samples import Engine, Sound

from sidecar.audio import Block
from sidecar.plugins.upstream.errors import UpstreamFailed
from sidecar.transcripts.transcript import SPEECH_MISSED

VOICE_RATE = 24_000


@pytest.fixture(scope="module")
def voice() -> Block:
    """Somebody who speaks without a long pause, at `VOICE_RATE`."""
    file = Path(moonshine_voice.get_assets_path()) / "beckett.wav"
    samples, rate = soundfile.read(file, dtype="float32")
    return soxr.resample(samples, rate, VOICE_RATE)


def sound_for(engine: Engine, voice: Block, seconds: int) -> Sound:
    rate = engine.engine.sample_rate
    return marked(seconds, rate, soxr.resample(voice, VOICE_RATE, rate))


@pytest.mark.parametrize("diarize", [False, True])
@pytest.mark.parametrize(
    ("dialect", "form"), [("openai", SEGMENTS), ("openai", WORDS), ("vllm", SEGMENTS)]
)
def test_words_behind_the_half_minute_that_an_upstream_hears_come_from_shorter_chunks(
    dialect: str, form: str, voice: Block, diarize: bool
) -> None:
    with MarkedUpstream(dialect, form) as there:
        engine = Engine(there.url)
        there.asked.clear()
        there.hears = lambda at: at < 30
        events = engine.events(sound_for(engine, voice, 130), diarize=diarize)
    found = transcript_of(events)
    assert found.text.split() == streamed_words(events) == words_until(130)
    assert found.notices == ()
    lengths = [one["seconds"] for one in there.asked]
    assert lengths[0] == 130, "what it hears is not known before"
    times = {"openai": 2, "vllm": 3}[dialect]  # to VibeVoice go halves, for its speakers
    assert sum(lengths) < times * 130, "none is sent again and again"


def test_speech_that_an_upstream_has_no_words_for_is_told(voice: Block) -> None:
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url)
        there.hears = lambda at: not 5 < at < 12
        found = engine.transcript(sound_for(engine, voice, 20), diarize=False)
        there.hears = lambda _: False
        silent = engine.transcript(sound_for(engine, voice, 20), diarize=False)
    (notice,) = found.notices
    assert notice.code == SPEECH_MISSED
    assert notice.message.endswith("of speech, the first at 0:05.")
    assert [one.code for one in silent.notices] == [SPEECH_MISSED]
    assert not silent.no_speech
    assert [one["seconds"] for one in there.asked[1:]] == [20.0, 20.0], "shorter does not help"


@pytest.mark.parametrize(("status", "why"), [(400, "No speech in this audio."), (500, "No.")])
def test_upstream_that_fails_on_what_it_did_not_hear_has_its_words_and_the_rest_is_told(
    status: int, why: str, voice: Block
) -> None:
    with MarkedUpstream("openai", SEGMENTS) as there:
        engine = Engine(there.url)
        there.hears = lambda at: at < 30
        there.refuses = lambda _, seconds: (status, why) if 3 < seconds < 99 else (0, "")
        found = engine.transcript(sound_for(engine, voice, 100), diarize=False)
    assert found.text.split() == words_until(30)
    (notice,) = found.notices
    assert notice.code == SPEECH_MISSED
    assert notice.message.endswith("the first at 0:30.")


def test_upstream_that_fails_on_everything_after_an_answer_ends_no_recording_without_its_rest(
    voice: Block,
) -> None:
    with MarkedUpstream("openai", SEGMENTS) as there:
        engine = Engine(there.url)
        there.hears = lambda at: at < 30
        there.refuses = lambda _, seconds: (500, "No GPU.") if seconds < 99 else (0, "")
        with pytest.raises(UpstreamFailed, match="No GPU"):
            engine.transcript(sound_for(engine, voice, 100), diarize=False)
        there.refuses, there.hears = lambda *_: (0, ""), lambda _: True
        found = engine.transcript(sound_for(engine, voice, 100), diarize=False)
    assert found.text.split() == words_until(100)


def test_upstream_that_hears_the_first_ten_seconds_of_anything_gets_the_rest_again_and_again(
    voice: Block,
) -> None:
    with MarkedUpstream("openai", WORDS) as there:
        engine = Engine(there.url)
        there.hears = lambda at: at < 10
        found = engine.transcript(sound_for(engine, voice, 55), diarize=False)
    assert found.text.split() == words_until(55)


@pytest.mark.parametrize(("dialect", "options"), [("sidecar", {}), ("openai", {"max_tokens": 9})])
def test_missing_words_of_a_vibevoice_asr_or_beyond_max_tokens_are_not_looked_for(
    dialect: str, options: dict[str, int], voice: Block
) -> None:
    with MarkedUpstream(dialect, WORDS) as there:
        engine = Engine(there.url)
        there.asked.clear()
        there.hears = lambda at: at < 30
        found = engine.transcript(sound_for(engine, voice, 60), diarize=False, **options)
    assert found.text.split() == words_until(30)
    assert len(there.asked) == 1
