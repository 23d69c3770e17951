"""Environment variables and priority of a worker process.

A worker parses untrusted files. It needs no token, key or password; the probe process needs almost
no variables.
"""

import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.checkpoints import onnx_models
from sidecar.gpu_memory import gpu_devices

WORKER_NICENESS = 5
"""Workers have a lower priority than the service, which must answer, and than the desktop."""
CANCEL_GRACE_S = 1.0
EXIT_GRACE_S = 2.0
NICENESS_VARIABLE = "VIBEVOICE_WORKER_NICENESS"
"""Variable with the niceness of a worker."""
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's second thread spins after each small product: a fifth of the processor time of a
recording with speakers. The networks have threads of their own. A value that the user sets wins."""
LOG_LEVEL_VARIABLE = "VIBEVOICE_WORKER_LOG_LEVEL"
"""Variable with the service's log level, wherever that was set."""
ENDS_WITH_PARENT_VARIABLE = "VIBEVOICE_WORKER_ENDS_WITH_PARENT"
"""Variable by which Linux ends a worker with the thread that started it."""

SECRET_NAME = re.compile(
    r"(^|_)(API|ACCESS|AUTH|PRIVATE)?(TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|PASS|PAT|KEYS?|CREDENTIALS?)$"
    r"|^(AWS|AZURE|OTEL)_|SECRET_|PASSWORD$|_PWD$",
    re.IGNORECASE,
)
"""Names of variables with secrets."""
PASSWORD_IN_VALUE = re.compile(
    r"://[^/?#\s:]*:[^/?#\s]*@|(^|[?&;\s])(ssl)?pass(word|wd)?\s*=", re.IGNORECASE
)
"""URL or connection string with a password, in a variable of any name."""
PASSED_VARIABLES = frozenset((
    "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV",
    "CONDA_PREFIX", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH",
    "IMAGEIO_FFMPEG_EXE", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT",
    "USERPROFILE", "APPDATA", "LOCALAPPDATA", "NUMBER_OF_PROCESSORS", "PROCESSOR_ARCHITECTURE",
    "OMP_NUM_THREADS", *ONE_BLAS_THREAD,
))  # fmt: skip
"""Variables that Python needs to start, to find its libraries and ffmpeg, and to place files."""
PASSED_PREFIXES = ("LC_", "PYTHON", "_PYI_", "_MEI")
"""Prefixes of further variables: locale, Python, folder of an unpacked packaged executable."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Behaviour of an engine's process.

    ``niceness``: its nice value. ``shared``: calls of several callers run in it at once, so it is
    not killed because one is slow to stop. ``patience_s``: minimum time for a cancelled call to
    stop, even if a new process would start sooner. ``cancel_grace_s``: minimum time for a
    cancelled call to stop. ``ping_timeout_s``: to answer a ping then. ``exit_grace_s``: time to
    end by itself, and after a kill.
    """

    niceness: int = WORKER_NICENESS
    shared: bool = False
    patience_s: float = 0.0
    cancel_grace_s: float = CANCEL_GRACE_S
    ping_timeout_s: float = CANCEL_GRACE_S
    exit_grace_s: float = EXIT_GRACE_S


def worker_environment_of(
    ours: Mapping[str, str], *, least: bool = False, niceness: int = WORKER_NICENESS
) -> dict[str, str]:
    """Return the environment of a worker, with the package's path: all variables but secrets, as
    many configure an engine's libraries; or the ``least`` to start, and to find ffmpeg."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [ours.get("PYTHONPATH")])]
    given = {
        **ONE_BLAS_THREAD,
        **{name: value for name, value in ours.items() if _passes(name, value, least)},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",
        **onnx_models.TELEMETRY_OFF_ENV,
        **gpu_devices.DEVICE_ORDER_ENV,  # a number means the GPU of the memory plan
        NICENESS_VARIABLE: str(niceness),
        LOG_LEVEL_VARIABLE: logging.getLevelName(logging.getLogger().level),
    }
    given.pop(ENDS_WITH_PARENT_VARIABLE, None)
    if threading.current_thread() is threading.main_thread():
        given[ENDS_WITH_PARENT_VARIABLE] = "1"
    return given


def _passes(name: str, value: str, least: bool) -> bool:
    if SECRET_NAME.search(name) or PASSWORD_IN_VALUE.search(value):
        return False
    upper = name.upper()  # names are case-insensitive on Windows
    return not least or upper in PASSED_VARIABLES or upper.startswith(PASSED_PREFIXES)
