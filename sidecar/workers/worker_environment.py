"""Environment variables and resource manners of a worker process.

A worker reads files that strangers made. It needs no token, no key and no password of anybody's;
the process that looks at files needs hardly anything.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from sidecar.checkpoints import onnx_runtime
from sidecar.gpu_memory import gpu_devices

WORKER_NICENESS = 5
"""Workers stand back behind the service, which must answer, and the desktop they run on."""
NICENESS_VARIABLE = "VIBEVOICE_WORKER_NICENESS"
"""Tells a worker how far."""
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's second thread spins after each small product: a fifth of the processor time of a
recording with speakers. The networks have threads of their own. A value that the user sets wins."""
LOG_LEVEL_VARIABLE = "VIBEVOICE_WORKER_LOG_LEVEL"
"""Tells a worker the service's level, wherever that came from."""
ENDS_WITH_PARENT_VARIABLE = "VIBEVOICE_WORKER_ENDS_WITH_PARENT"
"""Tells a worker that it may ask Linux to end it with the thread that started it: that thread
lives as long as the service."""

SECRET_NAME = re.compile(
    r"(^|_)(API|ACCESS|AUTH|PRIVATE)?(TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|PASS|PAT|KEYS?|CREDENTIALS?)$"
    r"|^(AWS|AZURE|OTEL)_|SECRET_|PASSWORD$|_PWD$",
    re.IGNORECASE,
)
"""Names of variables that hold what is nobody else's business."""
PASSWORD_IN_URL = re.compile(r"://[^/?#\s:]*:[^/?#\s]*@")
"""An address with a password in it, whatever the variable is called."""
PASSED_VARIABLES = frozenset(
    {
        "PATH",
        "HOME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "DYLD_FALLBACK_LIBRARY_PATH",
        "IMAGEIO_FFMPEG_EXE",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "OMP_NUM_THREADS",
        *ONE_BLAS_THREAD,
    }
)
"""Variables that a Python needs to start, to find its libraries and ffmpeg, and where to put
things."""
PASSED_PREFIXES = ("LC_", "PYTHON", "_PYI_", "_MEI")
"""And what begins so: the locale, Python's own, where a packaged executable has unpacked itself."""


class EnvironmentNeeds(Enum):
    """Share of the environment that a worker gets."""

    ENGINE = auto()
    """All but secrets: the libraries of an engine are steered by many variables."""
    LEAST = auto()
    """Variables needed to start, and to find ffmpeg."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Behaviour of an engine's process.

    ``niceness``: how far it stands back behind others. ``shared``: calls of many go on in it at
    once, so that it is not ended for one that is slow to stop. ``patience_s``: for which it is not
    ended sooner, however soon another would be there.
    """

    niceness: int = WORKER_NICENESS
    shared: bool = False
    patience_s: float = 0.0


def worker_environment_of(
    ours: Mapping[str, str], needs: EnvironmentNeeds, niceness: int = WORKER_NICENESS
) -> dict[str, str]:
    """The environment of a worker: what it ``needs`` of ours, and the package findable."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [ours.get("PYTHONPATH")])]
    given = {
        **ONE_BLAS_THREAD,
        **{name: value for name, value in ours.items() if _passes(name, value, needs)},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
        **onnx_runtime.TELEMETRY_OFF_ENV,
        **gpu_devices.DEVICE_ORDER_ENV,  # a number means the GPU whose memory was planned with
        NICENESS_VARIABLE: str(niceness),
        LOG_LEVEL_VARIABLE: logging.getLevelName(logging.getLogger().level),
    }
    given.pop(ENDS_WITH_PARENT_VARIABLE, None)
    if threading.current_thread() is threading.main_thread():
        given[ENDS_WITH_PARENT_VARIABLE] = "1"
    return given


def _passes(name: str, value: str, needs: EnvironmentNeeds) -> bool:
    if SECRET_NAME.search(name) or PASSWORD_IN_URL.search(value):
        return False
    upper = name.upper()  # as Windows spells them is all the same to it
    return (
        needs is EnvironmentNeeds.ENGINE
        or upper in PASSED_VARIABLES
        or upper.startswith(PASSED_PREFIXES)
    )
