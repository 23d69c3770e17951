"""How slow an upload may be."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request
from virtual_time import virtual_time

from sidecar.api.http.upload import MIN_UPLOAD_BYTES_PER_S as RATE
from sidecar.api.http.upload import STALL_FACTOR, read_body
from sidecar.api.http.upload import UPLOAD_STALL_S as STALL_S
from sidecar.errors import UploadStalled

pytestmark = virtual_time


async def upload(pauses_s: Sequence[float], size: int = 1, work_s: float = 0.0) -> float:
    """The time that a body takes whose pieces of ``size`` bytes come after these pauses.
    ``work_s``: how long the service is busy with each."""
    left = list(pauses_s)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(left.pop(0))
        return {"type": "http.request", "body": bytes(size), "more_body": bool(left)}

    async def take(chunk: bytes) -> None:
        await asyncio.sleep(work_s if chunk else 0.0)

    loop = asyncio.get_running_loop()
    begun = loop.time()
    await read_body(Request({"type": "http"}, receive), take)
    return loop.time() - begun


@pytest.mark.parametrize(
    ("pauses_s", "size", "work_s"),
    [
        ([STALL_S - 1] * 3, 1, 0.0),
        ([STALL_S - 1] * 20, int(STALL_S * RATE), 0.0),
        ([1.0] * 20, 1, 10 * STALL_S),
    ],
    ids=["within-the-tolerance", "at-the-minimum-rate", "slow-service"],
)
async def test_upload_that_is_slow_but_fast_enough_is_read_to_its_end(
    pauses_s: list[float], size: int, work_s: float
) -> None:
    expected = sum(pauses_s) + len(pauses_s) * work_s
    assert await upload(pauses_s, size, work_s) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("pauses_s", "after_s", "detail"),
    [
        ([1.0, 1000.0], 1.0 + STALL_S, UploadStalled.default_detail),
        ([STALL_S - 1] * 100, STALL_FACTOR * STALL_S, "The upload is too slow."),
        ([0.1] * 10_000, STALL_FACTOR * STALL_S, "The upload is too slow."),
    ],
    ids=["long-pause", "many-pauses", "bytes-at-intervals"],
)
async def test_upload_is_given_up_after_a_long_pause_or_too_low_a_rate(
    pauses_s: list[float], after_s: float, detail: str
) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(UploadStalled) as given_up:
        await upload(pauses_s)
    assert given_up.value.detail == detail
    assert loop.time() - begun == pytest.approx(after_s, abs=0.2)
