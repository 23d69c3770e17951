"""Samples with their times: blocks of a Matroska stream, holes between them."""

from __future__ import annotations

import io

import pytest

from sidecar.audio.timed_output import HoleFinder, TimedOutput

RATE = 16_000


def element(name: str, body: bytes, size_bytes: int = 4) -> bytes:
    size = len(body) | 1 << 7 * size_bytes
    return bytes.fromhex(name) + size.to_bytes(size_bytes) + body


def stream(*clusters: tuple[int, list[tuple[int, bytes]]]) -> bytes:
    """Times of clusters, and of blocks after them, in milliseconds."""
    track = element("ae", element("d7", b"\1", 1) + element("e1", element("9f", b"\2", 8)))
    found = element("1654ae6b", element("ec", bytes(9)) + track)
    for time, blocks in clusters:
        inside = element("e7", time.to_bytes(3), 1)
        for number, (after, data) in enumerate(blocks):
            block = b"\x81" + after.to_bytes(2, signed=True) + b"\x80" + data
            plain = element("a3", block, 3)
            inside += plain if number % 2 else element("a0", element("a1", block))
        found += element("1f43b675", inside)
    return element("1a45dfa3", bytes(20)) + bytes.fromhex("18538067") + b"\xff" + found


CONTENT = stream((0, [(0, b"ab"), (20, b"cd")]), (900_000, [(-5, b"ef"), (40, b"")]))


def test_blocks_have_their_times() -> None:
    output = TimedOutput(io.BytesIO(CONTENT).read)
    assert output.channels == 2
    assert list(output.blocks()) == [(0.0, b"ab"), (0.02, b"cd"), (899.995, b"ef"), (900.04, b"")]


@pytest.mark.parametrize("length", range(len(CONTENT)))
def test_stream_that_ends_anywhere_is_read_up_to_there(length: int) -> None:
    output = TimedOutput(io.BytesIO(CONTENT[:length]).read)
    whole = list(TimedOutput(io.BytesIO(CONTENT).read).blocks())
    found = list(output.blocks())
    assert found[:-1] == whole[: max(0, len(found) - 1)]


@pytest.mark.parametrize(
    ("times", "holes"),
    [
        pytest.param([0.0, 1.0, 2.0], [0, 0, 0], id="none"),
        pytest.param([4.0, 5.0, 9.5], [4.0, 0, 3.5], id="late-start-and-hole"),
        pytest.param([0.0, 1.05, 1.95, 3.09], [0, 0, 0, 0], id="jitter"),
        pytest.param([0.0, 2000.0, 2001.0], [0, 1999.0, 0], id="long"),
        pytest.param([0.0, 1.0, 9000.0, 9003.0], [0, 0, 0, 2.0], id="clock-set-forward"),
        pytest.param([100.0, 101.0, 0.0, 3.0], [100.0, 0, 0, 2.0], id="clock-set-back"),
    ],
)
def test_hole_is_the_time_without_samples_unless_a_clock_was_set(
    times: list[float], holes: list[float]
) -> None:
    finder = HoleFinder(RATE, 3600)
    assert [finder.before(time, RATE) / RATE for time in times] == holes
