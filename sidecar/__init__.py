"""Package of the speech-to-text service; its version."""

from sidecar.version import build_version

__version__ = build_version("0.2.0")
