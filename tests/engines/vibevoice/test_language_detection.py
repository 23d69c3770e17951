"""The language of a transcript, from its words."""

import pytest

from sidecar.transcripts.language_detection import detect_language
from sidecar.transcripts.transcript import NON_SPEECH_FLAG, Segment

SENTENCES = {
    "en": "We need to talk about the budget for next year.",
    "de": "Wir müssen morgen über das Budget sprechen.",
    "fr": "Nous devons parler du budget demain.",
    "es": "Tenemos que hablar del presupuesto mañana.",
    "it": "Dobbiamo parlare del bilancio domani.",
    "pt": "Precisamos falar sobre o orçamento amanhã.",
    "nl": "We moeten morgen over het budget praten.",
    "pl": "Musimy jutro porozmawiać o budżecie.",
    "ru": "Завтра нам нужно поговорить о бюджете.",
    "zh": "我们明天需要谈谈预算。",
    "ja": "明日、予算について話し合う必要があります。",
    "ko": "내일 예산에 대해 이야기해야 합니다.",
    "ar": "يجب أن نتحدث عن الميزانية غدا.",
    "hi": "हमें कल बजट के बारे में बात करनी होगी।",
}


def segments(*texts: str) -> list[Segment]:
    return [Segment(i, i + 1, text, 0) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("language", "sentence"), SENTENCES.items())
def test_language_of_sentence_is_detected(language: str, sentence: str) -> None:
    assert detect_language(segments(sentence)) == language


def test_language_of_recording_is_that_of_most_words() -> None:
    german = segments(*[SENTENCES["de"]] * 5, SENTENCES["en"])
    assert detect_language(german) == "de"


def test_non_speech_tags_do_not_count_for_language() -> None:
    tags = [Segment(0, 1, "[Environmental Sounds]", flags=(NON_SPEECH_FLAG,))] * 50
    assert detect_language([*tags, *segments(SENTENCES["fr"])]) == "fr"
    assert detect_language(tags) is None


@pytest.mark.parametrize("text", ["", "Hmm.", "Yeah.", "OK", "嗯", "1234", "…", "Fail again."])
def test_language_of_too_few_words_is_unknown(text: str) -> None:
    assert detect_language(segments(text)) is None


def test_language_without_segments_is_unknown() -> None:
    assert detect_language([]) is None
