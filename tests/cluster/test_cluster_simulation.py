"""The day of many cards that `bench.cluster` makes up."""

from __future__ import annotations

import random
from itertools import pairwise

from bench.cluster import DAY_S, LOAD_S, day, first_come_first_served, jain, served_well, simulated
from sidecar.jobs.scheduler import next_job

CARDS = 5
ARRIVALS = day(60, 0.9 * CARDS * DAY_S, random.Random(3))


def test_every_recording_is_begun_once_and_never_more_than_there_are_cards() -> None:
    done = list(simulated(ARRIVALS, CARDS, next_job))
    assert sorted(one.job.at for one in done) == [job.at for job in ARRIVALS]
    assert all(one.began >= one.job.at for one in done)
    edges = sorted([(one.began, 1) for one in done] + [(one.ended, -1) for one in done])
    at_once = 0
    for _, change in edges:
        at_once += change
        assert at_once <= CARDS


def test_no_card_is_idle_while_somebody_waits() -> None:
    done = list(simulated(ARRIVALS, CARDS, next_job))
    edges = sorted([(one.began, 1) for one in done] + [(one.ended, -1) for one in done])
    at_once, idle = 0, []
    for (at, change), (until, _) in pairwise(edges):
        at_once += change
        if at_once < CARDS and until - at > LOAD_S:
            idle.append((at, until))
    for one in done:
        waits = (one.job.at, one.began - LOAD_S)
        assert not any(waits[0] < until and at < waits[1] - LOAD_S for at, until in idle)


def test_owners_are_served_more_evenly_than_by_arrival() -> None:
    fair, by_arrival = (
        jain(served_well(list(simulated(ARRIVALS, CARDS, policy))))
        for policy in (next_job, first_come_first_served)
    )
    assert fair > 0.9 > by_arrival
