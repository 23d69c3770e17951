"""Speech to text with speakers, as a local sidecar."""

__version__ = "0.1.0"
