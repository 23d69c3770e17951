"""Time that passes only while all tasks wait: a test of ten minutes takes none, on any machine.

    pytestmark = virtual_time   # or @virtual_time above one test

The event loop jumps to its next timer once nothing is ready (looptime), and `time.monotonic` in the
loop's thread says the loop's time. Threads, processes and sockets know nothing of that: what waits
for one of them has to have no time limit, or to be tested in real time. Times are exact to a
microsecond: compare them by `pytest.approx(…, abs=1e-3)`.
"""

import asyncio
import time

import pytest

_real = time.monotonic
virtual_time = pytest.mark.looptime(start=_real)


def monotonic() -> float:
    """The running loop's time; outside of a loop, and in other threads, that of the machine."""
    try:
        return asyncio.get_running_loop().time()  # real time: none, if the loop's is virtual
    except RuntimeError:
        return _real()


def stand_still(seconds: float) -> None:
    """Let so much time pass in which the loop runs nothing, as in a long collection of garbage."""
    import looptime  # here, because `make exe` has no more than pytest

    loop = asyncio.get_running_loop()
    assert isinstance(loop, looptime.LoopTimeEventLoop)
    loop.setup_looptime(start=loop.time() + seconds)  # real time: none, it is virtual
