"""gRPC live protocol `stt`."""

import os


def disable_fork_support() -> None:
    """Turn off gRPC's fork support; call this before gRPC is imported.

    With it, gRPC prepares for child processes that use gRPC. If calls are in progress, that kills
    other children, such as an ffmpeg that decodes a recording (gRPC's doc/fork_support.md).
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
