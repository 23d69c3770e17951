"""Command `node`: run shared jobs."""

from typing import Any

from sidecar.cli.serve import run
from sidecar.plugins.shared_jobs.settings import ROLE_NODE


def run_node(given: dict[str, Any]) -> int:
    """Run shared jobs until stopped.

    A node accepts no requests for jobs; it claims queued jobs that fit this machine while it is
    free. All services of a cluster have the same journal, key and folder for uploads. A node serves
    only /health, the probes and /metrics. When it is stopped it claims no more; running jobs have
    shutdown_grace to finish, then another node resumes them from their resume points.

    Examples:

    * `vibevoice-asr node --journal postgresql://vibevoice@db/vibevoice --uploads /mnt/jobs/uploads`
    * `vibevoice-asr node --config node.toml --shutdown-grace 10m`
    * `vibevoice-asr serve --role front --config front.toml`: run a front for nodes
    """
    return run(given | {"role": ROLE_NODE})
