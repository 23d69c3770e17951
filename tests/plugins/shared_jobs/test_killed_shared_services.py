"""Services that share their jobs, killed and cut off; `python -m bench.shared_kills` is the long
run of it."""

import random
from pathlib import Path

import pytest

from bench.shared_kills import SETTLES, tried

pytestmark = pytest.mark.slow


async def test_jobs_end_once_with_own_text_and_the_poison_job_fails_when_services_are_killed(
    tmp_path: Path,
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    told = await tried(tmp_path, 8, 3, 1, seed, poison=1)
    assert told.states.total() == len(told.jobs) == len(told.keys) == 8
    assert dict(told.states) == {"done": 7, "failed (poison)": 1}
    assert told.cost[0] <= 2 + told.kills.total(), "it cost more than two engines"
    assert max(told.again, default=0) <= SETTLES
