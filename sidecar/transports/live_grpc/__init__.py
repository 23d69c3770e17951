"""Live audio over gRPC, as clients of such servers have it: package `stt`."""
