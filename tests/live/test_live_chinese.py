"""Chinese live audio in the script that was asked for: finals by their words, partials by
characters."""

import numpy as np
import pytest

from sidecar.interfaces.live_options import LiveOptions
from sidecar.interfaces.recognition import RecognitionHypothesis, SegmentRequest
from sidecar.live.runtime.live_scheduler import LiveRecognizers
from sidecar.live.runtime.recognition_plan import RecognitionUrgency
from sidecar.transcripts.transcript import Word

FINAL, SPECULATIVE, PARTIAL = (
    RecognitionUrgency.FINAL,
    RecognitionUrgency.SPECULATIVE,
    RecognitionUrgency.PARTIAL,
)


def recognized(
    hypothesis: RecognitionHypothesis, asked: str, urgency: RecognitionUrgency
) -> RecognitionHypothesis:
    request = SegmentRequest(np.zeros(1, np.float32), LiveOptions(language=asked))
    found = LiveRecognizers(lambda _: hypothesis).words(request, urgency)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("asked", "urgency", "text"),
    [
        *[("zh-TW", one, "說頭髮") for one in (FINAL, SPECULATIVE)],
        ("zh-TW", PARTIAL, "說頭發"),
        *[("zh-HK", FINAL, "説頭髮"), ("zh-Hant", FINAL, "說頭髮"), ("zh", FINAL, "说头发")],
        *[("auto", FINAL, "说头发"), ("en", FINAL, "说头发")],
    ],
)
def test_text_has_the_script_of_the_language_that_the_client_named(
    asked: str, urgency: RecognitionUrgency, text: str
) -> None:
    words = Word(0.0, 0.3, "说"), Word(0.3, 1.0, "头发")
    found = recognized(RecognitionHypothesis("说头发", words, language="zh"), asked, urgency)
    assert found.text == text
    assert [one.text for one in found.words] == [text[0], text[1:]]
    assert [(one.start, one.end) for one in found.words] == [(0.0, 0.3), (0.3, 1.0)]


def test_turns_before_a_partial_have_ended_and_change_by_their_words() -> None:
    earlier = ((16_000, RecognitionHypothesis("头发")),)
    found = recognized(RecognitionHypothesis("头发", earlier=earlier), "zh-TW", PARTIAL)
    assert found.text == "頭發"
    assert found.earlier == ((16_000, RecognitionHypothesis("頭髮")),)


def test_text_in_another_language_than_the_client_named_stays() -> None:
    found = recognized(RecognitionHypothesis("发音", language="ja"), "zh-TW", FINAL)
    assert found.text == "发音"


def test_state_of_the_engine_stays_with_the_text() -> None:
    heard = RecognitionHypothesis("头发", draft="state", tokens=(1, 2), sure=True)
    found = recognized(heard, "zh-TW", PARTIAL)
    assert (found.draft, found.tokens, found.sure) == ("state", (1, 2), True)
