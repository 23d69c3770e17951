"""Time limits of different modules that depend on each other."""

import re
from pathlib import Path

from vibevoice_asr_client import transport

from sidecar.api import live_routes
from sidecar.api.http import responses, websocket_connections
from sidecar.audio import ffmpeg_output
from sidecar.jobs import retention
from sidecar.plugins import settings_class
from sidecar.plugins.upstream import load_balancer
from sidecar.server import http_server, listeners
from sidecar.workers import audio_probe, worker_environment

DOCKER_STOP_S = 10.0
"""Time from SIGTERM to SIGKILL of `docker stop`."""
SYSTEMD = Path(__file__).parents[2] / "deploy/systemd/system/vibevoice-asr.service"


def default(name: str) -> float:
    return float(settings_class().model_fields[name].default)


def test_client_and_upstream_silence_timeouts_are_longer_than_two_sse_keep_alives() -> None:
    assert (
        min(transport.SILENCE_S, load_balancer.DEFAULT_LIMITS.stream_silence_timeout_s)
        > 2 * responses.SSE_KEEP_ALIVE_S
    )


def test_decoder_timeout_is_shorter_than_the_probe_timeout() -> None:
    assert ffmpeg_output.STALL_TIMEOUT_S < audio_probe.PROBE_TIMEOUT_S


def test_systemd_and_listener_stop_timeouts_are_longer_than_a_shutdown() -> None:
    takes_s = (
        default("shutdown_grace") + worker_environment.EXIT_GRACE_S + live_routes.CLOSE_TIMEOUT_S
    )
    (patience,) = re.findall(r"(?m)^TimeoutStopSec=(\d+)$", SYSTEMD.read_text("utf-8"))
    assert takes_s < listeners.STOP_TIMEOUT_S
    assert takes_s < int(patience)


def test_stop_with_the_default_grace_is_over_before_docker_kills() -> None:
    ends_s = retention.MIN_RETENTION_S + http_server.FINAL_ANSWERS_S
    assert default("shutdown_grace") + ends_s < DOCKER_STOP_S


def test_two_live_pings_and_grace_are_shorter_than_live_idle_and_that_than_live_longest() -> None:
    noticed_s = 2 * websocket_connections.LIVE_PING_S
    assert noticed_s + default("live_grace") < default("live_idle") < default("live_longest")
