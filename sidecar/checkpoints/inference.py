"""ONNX Runtime: imported here and nowhere else, when an engine loads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime

TELLS_NOBODY = {"ORT_DISABLE_TELEMETRY": "1"}
"""From 1.29 on its official builds report to Microsoft what is run, and keep a number that stands
for this machine, unless this is set before it is imported (its Privacy.md)."""


def load_runtime() -> Any:
    """The package. Raises ImportError or OSError where it does not load."""
    os.environ.update(TELLS_NOBODY)
    import onnxruntime

    return onnxruntime


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session on ``threads`` threads, which sleep between calls."""
    options = load_runtime().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait for the next call would burn a core each.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def session(
    model: str | bytes, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """A model, by its path or itself, ready to run on the CPU.

    Raises:
        Exception: the runtime does not take it; its errors have no base of their own.
    """
    runtime = load_runtime()
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
