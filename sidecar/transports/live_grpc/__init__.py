"""Live audio over gRPC, as clients of such servers have it: package `stt`."""

import os

# Else gRPC prepares itself for a child that goes on with it, whenever a process is started from
# here, and where calls are under way that costs the child its life: ffmpeg, with somebody's
# recording (gRPC's doc/fork_support.md). It is read when gRPC is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
