"""Live sessions written to files, sealed, to be looked at and sent again (docs/capture.md)."""
