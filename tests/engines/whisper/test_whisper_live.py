"""Whisper live, with the tiny model that knows two clips, each in its language."""

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_whisper
from live_client import LiveClient
from service_process import PATIENCE_S, wait_until
from tiny_vibevoice import clip
from tiny_whisper import PLAY, PROSE

from sidecar import errors
from sidecar.audio import Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.whisper import WhisperEngine, whisper_decoder
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import LoadOptions, Precision
from sidecar.interfaces.live_options import EndpointingOptions, LiveOptions, LiveOrder, TurnControl
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
from sidecar.live.runtime.live_scheduler import LiveRecognizers
from sidecar.live.runtime.load_shedding import EngineLoadModel, SheddingLevel
from sidecar.live.runtime.recognition_plan import MAX_PARTIAL_WORK_S, RecognitionUrgency, WorkPace

WHOLE = EndpointingOptions(threshold=0, neg_threshold=0, longest_s=30.0)
"""Everything is one piece, as the model has learned it."""


@pytest.fixture(scope="module")
def engine() -> WhisperEngine:
    engine = WhisperEngine()
    folder = str(tiny_whisper.model())
    list(engine.load(LoadOptions(Precision.FP32, folder, "cpu", live=True)))
    return engine


@pytest.fixture(scope="module")
def ear(engine: WhisperEngine) -> WhisperEngine:
    engine.open(LiveOptions(), live_events.LiveSessionStart(), lambda event: None).close()
    return engine


@pytest.fixture(scope="module")
def heard() -> dict[str, Block]:
    return {name: decode_audio_file(Path(clip(name)), 16_000) for name in (PLAY, PROSE)}


def hear(ear: WhisperEngine, audio: Block, **options: Any) -> RecognitionHypothesis:
    found = ear.recognize(SegmentRequest(audio, LiveOptions(**options)))
    assert found is not None
    return found


@pytest.mark.parametrize("name", [PLAY, PROSE])
@pytest.mark.parametrize("accurate", [False, True])
def test_whisper_finds_text_and_language_of_a_clip_and_no_word_times_unless_requested(
    ear: WhisperEngine, heard: dict[str, Block], name: str, accurate: bool
) -> None:
    found = hear(ear, heard[name], accurate=accurate)
    assert found.text == tiny_whisper.text(name)
    assert (found.language, found.sure) == (tiny_whisper.LANGUAGES[name], True)
    assert found.words == ()
    assert found.likelihood is not None
    assert found.likelihood > 0.9


def test_words_of_a_clip_have_times_and_confidences_if_requested(
    ear: WhisperEngine, heard: dict[str, Block]
) -> None:
    found = hear(ear, heard[PROSE], words=True)
    assert " ".join(word.text for word in found.words) == found.text
    starts = [word.start for word in found.words]
    assert starts == sorted(starts)
    assert found.words[-1].end <= len(heard[PROSE]) / 16_000
    assert all(word.confidence and word.confidence > 0.5 for word in found.words)


class Watched:
    """A model that tells how it was asked."""

    def __init__(
        self, real: whisper_decoder.WhisperRecognizer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.wishes: list[whisper_decoder.WhisperRequest] = []
        self.before: list[str | None] = []
        self.free = threading.Event()
        self.free.set()
        hear = real.recognize

        def watched(
            samples: Block, wish: whisper_decoder.WhisperRequest, before: str | None = None
        ) -> whisper_decoder.WhisperResult:
            self.wishes.append(wish)
            self.before.append(before)
            self.free.wait(PATIENCE_S)
            return hear(samples, wish, before)

        monkeypatch.setattr(real, "recognize", watched)


@pytest.fixture
def watched(engine: WhisperEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    assert engine.model is not None
    found = Watched(engine.model, monkeypatch)
    yield found
    found.free.set()


def final_and_partial(
    ear: WhisperEngine, audio: Block, watched: Watched, options: LiveOptions
) -> list[whisper_decoder.WhisperRequest]:
    """What the model is asked for by a final, and by a partial."""
    request = SegmentRequest(audio, options)
    ear.recognize(request)
    LiveRecognizers(ear.recognize).words(request, RecognitionUrgency.PARTIAL)
    return watched.wishes


def test_accurate_finals_use_5_beams_and_word_times_and_partials_use_neither(
    ear: WhisperEngine, heard: dict[str, Block], watched: Watched
) -> None:
    options = LiveOptions(accurate=True, words=True)
    final, partial = final_and_partial(ear, heard[PROSE], watched, options)
    assert (final.beams, final.timed) == (5, True)
    assert (partial.beams, partial.timed) == (1, False)


def test_finals_and_partials_have_the_language_prompt_and_translation_of_the_session(
    ear: WhisperEngine, heard: dict[str, Block], watched: Watched
) -> None:
    options = LiveOptions(
        accurate=True, words=True, prompt="Godot", translate=True, language="de-AT"
    )
    wishes = final_and_partial(ear, heard[PROSE], watched, options)
    assert len(wishes) == 2
    for wish in wishes:
        assert (wish.language, wish.prompt, wish.translate) == ("de", "Godot", True)


def test_finals_and_partials_are_recognized_without_temperature_and_retries(
    ear: WhisperEngine, heard: dict[str, Block], watched: Watched
) -> None:
    wishes = final_and_partial(ear, heard[PROSE], watched, LiveOptions(accurate=True, words=True))
    assert [(wish.temperature, wish.retries) for wish in wishes] == [(0.0, False)] * 2


def test_audio_of_50_ms_to_30_s_is_recognized_by_whisper_without_error(
    ear: WhisperEngine, heard: dict[str, Block]
) -> None:
    for seconds in (0.05, 1.0, 30.0):
        wish = whisper_decoder.WhisperRequest("de", retries=False, timed=False)
        assert ear.model.recognize(heard[PROSE][: round(seconds * 16_000)], wish).tokens >= 0


def test_cancelled_recognition_returns_no_result_while_its_window_is_still_running(
    ear: WhisperEngine, heard: dict[str, Block], watched: Watched
) -> None:
    watched.free.clear()
    request = SegmentRequest(heard[PROSE], LiveOptions(), cancelled=lambda: bool(watched.wishes))
    assert ear.recognize(request) is None


def session(
    engine: WhisperEngine, options: LiveOptions, *turns: Block
) -> list[live_events.LiveEvent]:
    client = LiveClient(engine, replace(options, patience_s=PATIENCE_S))
    for audio in turns:
        for block in np.split(audio, range(16_000, len(audio), 16_000)):
            client.session.push(block)
            wait_until(lambda: not client.session.recognizer.busy, "the analysis of a block")
        client.session.push(LiveOrder.COMMIT)
    return client.end().told


def test_language_is_detected_for_each_turn_with_that_of_the_turn_before_as_a_hint(
    engine: WhisperEngine, heard: dict[str, Block], watched: Watched
) -> None:
    options = LiveOptions(
        turns=TurnControl.CLIENT, endpointing=WHOLE, partials=False, diarize=False, language="auto"
    )
    told = session(engine, options, heard[PROSE], heard[PLAY], heard[PROSE])
    finals = [event for event in told if isinstance(event, live_events.Final)]
    assert [one.language for one in finals] == ["de", "en", "de"]
    assert [wish.language for wish in watched.wishes] == [None, None, None]
    assert watched.before == [None, "de", "en"]


def test_slow_windows_turn_partials_off_with_one_notice(
    engine: WhisperEngine,
    ear: WhisperEngine,
    heard: dict[str, Block],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = WorkPace()
    slow.took(RecognitionUrgency.PARTIAL, 9 * MAX_PARTIAL_WORK_S, math.inf)
    monkeypatch.setattr(ear.scheduler, "pace", slow)
    # A busy machine sheds partials for another reason, which has no notice.
    monkeypatch.setattr(EngineLoadModel, "level", lambda _, now: SheddingLevel.NOTHING)
    # Without pauses: text that is recognized in a pause is shown, too.
    options = LiveOptions(turns=TurnControl.CLIENT, endpointing=WHOLE, diarize=False)
    told = session(engine, options, heard[PROSE])
    assert [event for event in told if isinstance(event, live_events.Final)]
    assert not [event for event in told if isinstance(event, live_events.Partial)]
    notices = [event.notice.code for event in told if isinstance(event, live_events.NoticeRaised)]
    assert notices == ["partials_off"]


def test_live_session_in_a_language_without_token_in_the_model_is_refused(
    engine: WhisperEngine,
) -> None:
    with pytest.raises(errors.LanguageUnsupported):
        engine.open(LiveOptions(language="yue"), live_events.LiveSessionStart(), lambda event: None)
