"""Commands `serve` and `node`."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from sidecar import errors
from sidecar.cli.output import INTERRUPTED, PROGRAM, report_error
from sidecar.config.settings import ROLE_NODE, load_settings
from sidecar.server.service_process import (
    IMPORT_THREAD,
    fatal_line,
    serve,
    write_parent_line,
)

HELP = f"""
Serve over HTTP until stopped.

Flags win over the environment, the environment over the file, the file over the defaults. The
file is config.toml in the folder vibevoice-asr of your configuration folder, or the one that
VIBEVOICE_CONFIG or --config names.

Examples:

* `{PROGRAM} serve --port 9000 --keep-alive 1h`
* `{PROGRAM} --engine scripted`: return made-up text at once, for developers of hosts
"""
NODE_HELP = f"""
Run shared jobs until stopped.

A node accepts no requests for jobs; it claims queued jobs that fit this machine while it is free.
All services of a cluster have the same journal, key and folder for uploads. A node serves only
/health, the probes and /metrics. When it is stopped it claims no more; running jobs have
shutdown_grace to finish, then another node resumes them from their checkpoints.

Examples:

* `{PROGRAM} node --journal postgresql://vibevoice@db/vibevoice --uploads /mnt/jobs/uploads`
* `{PROGRAM} node --config node.toml --shutdown-grace 10m`
* `{PROGRAM} serve --role front --config front.toml`: run a front for nodes
"""
log = logging.getLogger(__name__)


def run(given: dict[str, Any]) -> int:
    """Serve with the settings that were given as flags, until stopped; return the exit code."""
    code = _serve(given)
    if any(thread.name == IMPORT_THREAD for thread in threading.enumerate()):
        os._exit(code)  # Python would wait for its imports, or break one off in a C extension
    return code


def _serve(given: dict[str, Any]) -> int:
    try:
        if given:  # typer, which declares the flags, is imported already
            from sidecar.cli.common_options import refuse_plain_secrets

            refuse_plain_secrets(given)
        settings = load_settings(**given)
        if settings.engine == "vibevoice":
            from sidecar.cli import pull

            pull.download_if_missing(settings)
        serve(settings)
    except errors.SidecarError as error:
        return _fatal(error)
    except Exception:  # the parent process gets a line and an exit code in any case
        log.exception("internal error at the start of the service")
        return _fatal(errors.SidecarError())
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def run_node(given: dict[str, Any]) -> int:
    """Serve as a node with the settings that were given as flags; return the exit code."""
    return run(given | {"role": ROLE_NODE})


def _fatal(error: errors.SidecarError) -> int:
    write_parent_line(fatal_line(error))
    return report_error(error)
