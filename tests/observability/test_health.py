"""When the service is not healthy, and which outcomes count."""

from collections import Counter

import pytest

import sidecar.plugins  # noqa: F401  # with their errors
from sidecar import errors
from sidecar.observability import health


@pytest.mark.parametrize(
    ("lately", "why"),
    [
        (Counter(), None),
        (Counter(failed=4), None),  # too few to say
        (Counter(done=3, failed=2), None),
        (Counter(done=2, failed=3), "too_many_failures"),
        (Counter(done=3, timed_out=3), None),
        (Counter(done=2, timed_out=3), "too_many_timeouts"),
    ],
)
def test_health_problem_is_a_majority_of_failures_or_of_timeouts_in_five_or_more_outcomes(
    lately: health.Outcomes, why: str | None
) -> None:
    assert health.health_problem(lately) == why


def test_outcomes_older_than_the_window_do_not_count_and_take_no_memory() -> None:
    now = [0.0]
    outcomes = health.OutcomeWindow(lambda: now[0])
    for second in range(1000):
        now[0] = second / 2
        outcomes.add(
            health.RecognitionOutcome.DONE if second % 2 else health.RecognitionOutcome.FAILED
        )
    assert outcomes.lately(1000).total() == 2 * health.MAX_OUTCOME_SECONDS < 1000
    assert outcomes.lately(60) == Counter(done=60, failed=60)
    now[0] += 61
    assert outcomes.lately(60) == Counter()


def test_client_errors_do_not_count_and_engine_errors_count_as_failed_or_timed_out() -> None:
    found = {error.code: health.outcome_of_error(error()) for error in errors.all_errors()}
    assert found["audio_undecodable"] is found["queue_full"] is found["wont_fit"] is None
    assert found["engine_crashed"] is found["model_load_failed"] is health.RecognitionOutcome.FAILED
    assert found["upstream_timeout"] is health.RecognitionOutcome.TIMED_OUT
    assert found["internal"] is health.RecognitionOutcome.FAILED
