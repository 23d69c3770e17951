"""Which job comes next when precisions compete: by table, and in a long queue."""

from __future__ import annotations

import pytest

from sidecar.jobs.residency import PASSED_OVER_S, next_job
from sidecar.speech.engine import Precision

A, B, C = Precision.BF16, Precision.INT8, Precision.INT4
LONG = PASSED_OVER_S


@pytest.mark.parametrize(
    ("wanted", "passed_over_s", "loaded", "expected"),
    [
        ([A], [0.0], None, 0),
        ([A, B], [5.0, 1.0], None, 0),
        ([A, B], [5.0, 1.0], A, 0),
        ([A, B], [5.0, 1.0], B, 1),
        ([A, C, B, B], [5.0, 4.0, 3.0, 2.0], B, 2),
        ([A, B], [5.0, 1.0], C, 0),
        ([A, B], [LONG, 1.0], B, 0),
        ([A, B], [LONG - 0.1, 1.0], B, 1),
        ([A, A, B], [LONG + 9, LONG + 9, 0.0], B, 0),
    ],
)
def test_what_is_loaded_goes_first_until_somebody_has_waited_long(
    wanted: list[Precision], passed_over_s: list[float], loaded: Precision | None, expected: int
) -> None:
    assert next_job(wanted, passed_over_s, loaded) == expected


@pytest.mark.parametrize("job_s", [1.0, 10.0, 45.0])
def test_in_an_hour_of_two_precisions_loads_are_few_and_nobody_waits_for_two_turns(
    job_s: float,
) -> None:
    """Two clients keep ten jobs each in the queue; every job takes ``job_s``, a load 20 s."""
    load_s, now, loads = 20.0, 0.0, 0
    queue = [((A, B)[number % 2], 0.0) for number in range(20)]
    loaded, loaded_at = None, 0.0
    longest = {A: 0.0, B: 0.0}
    while now < 3600.0:
        passed = [now - max(came, loaded_at) for _, came in queue]
        index = next_job([wanted for wanted, _ in queue], passed, loaded)
        wanted, came = queue.pop(index)
        if wanted is not loaded:
            now += load_s
            loads, loaded, loaded_at = loads + 1, wanted, now
        longest[wanted] = max(longest[wanted], now - came)
        now += job_s
        queue.append((wanted, now))
    turns = 3600.0 / (PASSED_OVER_S + load_s)
    assert loads <= turns + 2
    # Ten jobs of one's own, in turns of at least PASSED_OVER_S with as long a turn of the other.
    turn_s = PASSED_OVER_S + job_s + load_s
    own_turns = -(-10 * job_s // PASSED_OVER_S)
    assert max(longest.values()) <= 2 * turn_s * (own_turns + 1)
