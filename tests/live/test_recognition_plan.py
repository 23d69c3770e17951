"""Words before finals: which may be shown, what is recognized first, and what they may cost."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.live.runtime.recognition_plan import (
    MAX_PARTIAL_WORK_S,
    RETRY_AFTER_S,
    HypothesisAgreement,
    PartialText,
    RecognitionUrgency,
    WorkPace,
    turn_order,
)

TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "A,", "c."]), max_size=6).map(" ".join))


def test_first_partial_shows_all_words_but_the_last() -> None:
    assert HypothesisAgreement().update("one two three") == PartialText("one two", "", "three")


def test_common_prefix_of_two_hypotheses_is_stable() -> None:
    agreement = HypothesisAgreement()
    agreement.update("one two tree")
    assert agreement.update("one two three four") == PartialText("one two", "one two", "three four")


def test_stable_text_ignores_case_and_punctuation_and_has_the_newest_spelling() -> None:
    agreement = HypothesisAgreement()
    agreement.update("Well, this")
    assert agreement.update("well this. Is") == PartialText("well this.", "well this.", "Is")


@given(TEXTS)
def test_stable_text_only_grows(texts: list[str]) -> None:
    agreement, before = HypothesisAgreement(), ""
    for count, text in enumerate(texts):
        shown = agreement.update(text)
        assert shown.stable.startswith(before)
        assert shown.text.startswith(shown.stable)
        if count:
            kept = len(shown.stable.split())
            assert shown.tail.split() == text.split()[kept:]
        before = shown.stable


def test_shorter_hypothesis_does_not_shorten_the_stable_text() -> None:
    agreement = HypothesisAgreement()
    for text in ("one two three", "one two three", "one"):
        shown = agreement.update(text)
    assert shown == PartialText("one two three", "one two three", "")
    assert agreement.update("one two three four").stable == "one two three"
    assert agreement.update("one two three four").stable == "one two three four"


FINAL, EARLY, PARTIAL = (
    RecognitionUrgency.FINAL,
    RecognitionUrgency.SPECULATIVE,
    RecognitionUrgency.PARTIAL,
)
REST = EARLY, PARTIAL


def test_finals_go_before_speculative_work_and_that_before_partials() -> None:
    keys = [turn_order("a", FINAL, 9.0, {}), *(turn_order("a", one, 0.0, {}) for one in REST)]
    assert keys == sorted(keys)


def test_oldest_final_is_first_whichever_client_was_served() -> None:
    assert turn_order("b", FINAL, 1.0, {"b": 100.0}) < turn_order("a", FINAL, 2.0, {"b": 100.0})


def test_work_ahead_of_real_time_waits_behind_all_other_work_finals_too() -> None:
    others = [turn_order("a", one, 9.0, {"a": 9.0}) for one in (FINAL, *REST)]
    assert max(others) < min(turn_order("b", one, 0.0, {}, ahead=True) for one in (FINAL, *REST))


def test_client_with_many_sessions_is_served_as_often_as_a_client_with_one() -> None:
    wishes = [*[("many", PARTIAL, 0.0)] * 9, ("one", PARTIAL, 5.0)]
    served: dict[str, float] = {}
    order = []
    for now in range(6):
        client, *_ = min(wishes, key=lambda one: turn_order(*one, served))
        served[client] = float(now)
        order.append(client)
    assert order == ["many", "one"] * 3


def test_partials_and_speculative_work_are_allowed_before_any_work_was_measured() -> None:
    pace = WorkPace()
    assert all(pace.allows(one, 0.0) for one in RecognitionUrgency)


def test_slow_partials_stop_but_for_one_retry_after_a_time_and_resume_once_quick() -> None:
    pace = WorkPace()
    pace.took(PARTIAL, 2 * MAX_PARTIAL_WORK_S, now=0.0)
    assert not pace.allows(PARTIAL, RETRY_AFTER_S - 1)
    assert pace.allows(EARLY, 1.0)
    assert pace.allows(PARTIAL, RETRY_AFTER_S)
    pace.tried(PARTIAL, RETRY_AFTER_S)
    assert not pace.allows(PARTIAL, RETRY_AFTER_S)
    pace.took(PARTIAL, 0.01, RETRY_AFTER_S + 1)
    pace.took(PARTIAL, 0.01, RETRY_AFTER_S + 1)
    assert pace.allows(PARTIAL, RETRY_AFTER_S + 2)


def test_one_slow_partial_among_quick_ones_stops_none() -> None:
    pace = WorkPace()
    for work_s in (0.1, 0.1, 1.5):
        pace.took(PARTIAL, work_s, 0.0)
    assert pace.allows(PARTIAL, 1.0)


def test_slow_final_stops_speculative_work_but_not_partials() -> None:
    pace = WorkPace()
    pace.took(FINAL, 2 * MAX_PARTIAL_WORK_S, 0.0)
    assert not pace.allows(EARLY, 1.0)
    assert pace.allows(FINAL, 1.0)
    assert pace.allows(PARTIAL, 1.0), "they may be heard in shorter windows"
