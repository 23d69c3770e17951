"""`vibevoice-asr serve`, and what no words at all mean."""

from __future__ import annotations

from typing import Any

from sidecar import errors
from sidecar.commands import INTERRUPTED, complain
from sidecar.process import serve
from sidecar.settings import load_settings


def run(given: dict[str, Any]) -> int:
    """Serve with the settings that were given as flags, until told to stop; the exit code."""
    try:
        settings = load_settings(**given)
        if settings.engine == "vibevoice":
            from sidecar.commands import pull

            pull.provide(settings)
        serve(settings)
    except errors.SidecarError as error:
        return complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
