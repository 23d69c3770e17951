"""Which waiting job comes next when precisions compete for one engine: pure, from values.

Loading anew costs seconds to minutes, so jobs that want what is loaded go first; but nobody is
passed over for longer than a limit, so two clients that want different things take turns at that
pace instead of at every job.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.engine import Precision

PASSED_OVER_S = 60.0
"""Longest time that jobs of the loaded precision go before an older one."""


def next_job(
    wanted: Sequence[Precision], waited_s: Sequence[float], loaded: Precision | None
) -> int:
    """The index of the job to run: ``wanted`` and ``waited_s`` of each in order of arrival.

    ``loaded`` is the precision in memory, None while there is none. At least one job waits.
    """
    if loaded is None or waited_s[0] >= PASSED_OVER_S:
        return 0
    return next((index for index, one in enumerate(wanted) if one is loaded), 0)
