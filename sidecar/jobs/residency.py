"""Which waiting job comes next when precisions compete for one engine: pure, from values.

Loading anew costs seconds to minutes, so jobs that want what is loaded go first; but nobody is
passed over for longer than a limit, so two clients that want different things take turns at that
pace instead of at every job. The limit counts from the last load: in a queue whose jobs have all
waited for longer, every one of them would be a turn of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.speech.engine import Precision

PASSED_OVER_S = 60.0
"""Longest time that jobs of the loaded precision go before an older one."""


def next_job(
    wanted: Sequence[Precision], passed_over_s: Sequence[float], loaded: Precision | None
) -> int:
    """The index of the job to run, of those in order of arrival; at least one waits.

    ``passed_over_s``: seconds since the job came or the engine was loaded, whichever was later.
    ``loaded``: the precision in memory, None while there is none.
    """
    if loaded is None or passed_over_s[0] >= PASSED_OVER_S:
        return 0
    return next((index for index, one in enumerate(wanted) if one is loaded), 0)
