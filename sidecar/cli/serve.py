"""Command `serve`."""

from __future__ import annotations

import logging
from typing import Any

from sidecar import errors
from sidecar.cli.common_options import refuse_plain_secrets
from sidecar.cli.output import INTERRUPTED, PROGRAM, report_error
from sidecar.config.settings import ROLE_NODE, load_settings
from sidecar.server.parent_process import fatal_line, write_parent_line
from sidecar.server.service_process import serve

HELP = f"""
Serve over HTTP until told to stop.

Flags win over the environment, the environment over the file, the file over the defaults. The
file is config.toml in the folder vibevoice-asr of your configuration folder, or the one that
VIBEVOICE_CONFIG or --config names.

Examples:

* `{PROGRAM} serve --port 9000 --keep-alive 1h`
* `{PROGRAM} --engine scripted`: for hosts in development, made-up text at once
"""
NODE_HELP = f"""
Work on the jobs that services share, until told to stop.

A node takes no jobs in, and claims what fits this machine when it is free. All that share have the
same journal, the same key and the same folder for uploads. Of its port only /health, the probes and
/metrics are left. Told to stop it claims no more; what runs has the time of shutdown_grace to end,
then another goes on with it from what is settled.

Examples:

* `{PROGRAM} node --journal postgresql://vibevoice@db/vibevoice --uploads /mnt/jobs/uploads`
* `{PROGRAM} node --config node.toml --shutdown-grace 10m`
* `{PROGRAM} serve --role front --config front.toml`: who takes in for nodes
"""
log = logging.getLogger(__name__)


def run(given: dict[str, Any]) -> int:
    """Serve with the settings that were given as flags, until told to stop; the exit code."""
    try:
        refuse_plain_secrets(given)
        settings = load_settings(**given)
        if settings.engine == "vibevoice":
            from sidecar.cli import pull

            pull.download_if_missing(settings)
        serve(settings)
    except errors.SidecarError as error:
        return _fatal(error)
    except Exception:  # the host reads a line and an exit code, whatever it was
        log.exception("internal error at the start of the service")
        return _fatal(errors.SidecarError())
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def run_node(given: dict[str, Any]) -> int:
    """Serve as a node with the settings that were given as flags; the exit code."""
    return run(given | {"role": ROLE_NODE})


def _fatal(error: errors.SidecarError) -> int:
    write_parent_line(fatal_line(error))
    return report_error(error)
