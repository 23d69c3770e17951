"""Who of ours has what of a device: nobody plans with what another engine of ours will take."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sidecar.gpu_memory.gpu_devices import DeviceLedger, EngineMemoryHolding

FILES, LIVE = "files", "live"
CARD = 24


def ledger(reserved: Mapping[str, int]) -> DeviceLedger:
    one = DeviceLedger()
    for who, size in reserved.items():
        one.reserve(who, size)
    return one


def there(weights: int, pid: int) -> EngineMemoryHolding:
    return EngineMemoryHolding(pid, weights)


COMING = EngineMemoryHolding(coming=True)
NOBODY = EngineMemoryHolding()


@pytest.mark.parametrize(
    ("reserved", "holdings", "used", "processes", "free", "own"),
    [
        pytest.param({}, {}, 3, {}, 21, 0, id="nobody-but-strangers"),
        pytest.param({LIVE: 6}, {LIVE: NOBODY}, 1, {}, 17, 0, id="live-is-about-to-come"),
        pytest.param({LIVE: 6}, {LIVE: there(6, 2)}, 7, {2: 6}, 17, 0, id="live-is-there"),
        pytest.param({LIVE: 9}, {LIVE: there(6, 2)}, 7, {2: 6}, 14, 0, id="live-will-take-more"),
        pytest.param({LIVE: 6}, {LIVE: there(6, 2)}, 9, {2: 8}, 15, 0, id="live-has-more"),
        pytest.param({LIVE: 6}, {LIVE: there(6, 2)}, 7, {}, 17, 0, id="the-driver-tells-nothing"),
        pytest.param(
            {FILES: 9, LIVE: 6},
            {FILES: there(5, 1), LIVE: there(6, 2)},
            12,
            {1: 5, 2: 6},
            12,
            5,
            id="both-are-there",
        ),
        pytest.param(
            {FILES: 9, LIVE: 8},
            {FILES: there(5, 1), LIVE: there(6, 2)},
            12,
            {},
            10,
            5,
            id="both-are-there-and-the-driver-tells-nothing",
        ),
        pytest.param(
            {FILES: 9, LIVE: 8},
            {FILES: there(5, 1), LIVE: COMING},
            9,
            {1: 5},
            7,
            8,
            id="what-has-come-of-live-is-among-ours-and-all-of-it-reserved",
        ),
        pytest.param(
            {FILES: 9, LIVE: 20},
            {FILES: there(9, 1), LIVE: there(6, 2)},
            16,
            {1: 9, 2: 6},
            -6,
            9,
            id="live-was-promised-what-files-would-have-to-let-go-of",
        ),
    ],
)
def test_what_is_left_for_files(
    reserved: Mapping[str, int],
    holdings: Mapping[str, EngineMemoryHolding],
    used: int,
    processes: Mapping[int, int],
    free: int,
    own: int,
) -> None:
    """In GiB of 24; of the first look strangers take 1 (3 where nobody else is there)."""
    one = ledger(reserved)
    one.see({}, 3 if not holdings else 1, {})
    one.see(holdings, used, processes)
    assert (CARD - used - one.committed_bytes(FILES), one.own_bytes(FILES, used)) == (free, own)


@pytest.mark.parametrize("tells", [True, False])
def test_two_engines_share_a_card_to_the_last_byte_and_none_twice(tells: bool) -> None:
    """What each may take in all: the card, less strangers, less what the other has reserved."""
    one = ledger({FILES: 12, LIVE: 7})
    one.see({}, 2, {})
    one.see({FILES: there(9, 1), LIVE: there(6, 2)}, 19, {1: 11, 2: 6} if tells else {})
    room = {
        who: CARD - 19 - one.committed_bytes(who) + one.own_bytes(who, 19) for who in (FILES, LIVE)
    }
    assert room == {FILES: CARD - 2 - 7, LIVE: CARD - 2 - 12}


def test_what_was_reserved_last_counts_until_it_is_released() -> None:
    one = ledger({LIVE: 9})
    one.reserve(LIVE, 5)
    assert (one.committed_bytes(FILES), one.committed_bytes(LIVE)) == (5, 0)
    one.release(LIVE)
    one.release(LIVE)
    assert one.committed_bytes(FILES) == 0


def test_whoever_is_enlisted_is_asked_what_it_holds_now() -> None:
    one, held = DeviceLedger(), [NOBODY]
    one.register_engine(FILES, lambda: held[0])
    assert one.holdings() == {FILES: NOBODY}
    held[0] = there(5, 1)
    assert one.holdings() == {FILES: there(5, 1)}
