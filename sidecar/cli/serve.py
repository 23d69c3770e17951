"""Command `serve`."""

from __future__ import annotations

import logging
from typing import Any

from sidecar import errors
from sidecar.cli.output import INTERRUPTED, complain
from sidecar.config.settings import load_settings
from sidecar.server.parent_process import announce, fatal_line
from sidecar.server.service_process import serve

log = logging.getLogger(__name__)


def run(given: dict[str, Any]) -> int:
    """Serve with the settings that were given as flags, until told to stop; the exit code."""
    try:
        settings = load_settings(**given)
        if settings.engine == "vibevoice":
            from sidecar.cli import pull

            pull.provide(settings)
        serve(settings)
    except errors.SidecarError as error:
        return _fatal(error)
    except Exception:  # the host reads a line and an exit code, whatever it was
        log.exception("a fault of ours at the start")
        return _fatal(errors.SidecarError())
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _fatal(error: errors.SidecarError) -> int:
    announce(fatal_line(error))
    return complain(error)
