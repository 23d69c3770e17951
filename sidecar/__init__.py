"""Package of the speech-to-text service; its version."""

from sidecar.version import __version__ as __version__
