"""Clock that counts the time for which the machine is suspended."""

import shutil
import subprocess
import sys

import pytest

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
