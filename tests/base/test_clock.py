"""Clock that counts the time for which the machine is suspended."""

import runpy
import shutil
import subprocess
import sys
import time

import pytest

from sidecar import clock
from sidecar.clock import suspended_s

DAY_S = 86_400


@pytest.mark.posix("time namespaces")
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare here")
def test_day_of_suspension_is_counted_by_lasting_time_and_not_by_the_monotonic_clock() -> None:
    """To processes in a time namespace the machine was suspended."""
    away = ["unshare", "--time", "--boottime", str(DAY_S), "--fork"]
    if subprocess.run([*away, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no time namespace")
    code = (
        "import time; from sidecar import clock; "
        "print(clock.suspended_s(), clock.lasting_time() - time.monotonic())"
    )
    said = subprocess.run([*away, sys.executable, "-c", code], capture_output=True, check=True)
    counted = [float(one) for one in said.stdout.split()]
    assert counted == pytest.approx([suspended_s() + DAY_S] * 2, abs=2.0)


@pytest.mark.parametrize(
    ("platform", "total", "awake"),
    [
        ("darwin", "CLOCK_MONOTONIC", "CLOCK_UPTIME_RAW"),
        ("linux", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC"),
    ],
)
def test_suspension_is_what_one_clock_of_the_system_counts_and_the_other_does_not(
    platform: str, total: str, awake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {total: 90_000.0 + DAY_S, awake: 90_000.0}
    with monkeypatch.context() as system:
        system.setattr(sys, "platform", platform)
        for name in shown:
            system.setattr(time, name, name, raising=False)
        system.setattr(time, "clock_gettime", shown.__getitem__, raising=False)
        asked = runpy.run_path(clock.__file__)["suspended_s"]
        assert asked() == DAY_S
        shown[awake] += 3600.0
        assert asked() == DAY_S, "it never becomes less"


def test_suspension_is_counted_by_the_monotonic_clock_of_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert runpy.run_path(clock.__file__)["suspended_s"]() == 0.0
