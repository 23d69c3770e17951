"""gRPC live protocol `stt`."""

import os


def disable_fork_support() -> None:
    """Have gRPC, which is imported after this, leave alone what the process starts.

    Else it readies itself for a child that goes on with it, and where calls are under way that
    costs the child its life: ffmpeg, with somebody's recording (gRPC's doc/fork_support.md).
    """
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
