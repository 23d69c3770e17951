"""Speech to text with speakers, as a local sidecar."""

from sidecar.version import build_version

__version__ = build_version("0.1.0")
