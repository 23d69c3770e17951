"""Service process: start, ready line, limit of file descriptors."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
from typing import Any

from pydantic import SecretStr

from sidecar import errors
from sidecar.config.config_files import UNSUPPORTED_YAP_VARIABLES
from sidecar.config.secret_settings import resolve_token, take_stdin_secret
from sidecar.config.settings import Settings, unknown_variables
from sidecar.observability.logs import ProcessLog, log_file
from sidecar.server import listeners as server_listeners
from sidecar.server import port_owner
from sidecar.server.listeners import ReservedPorts, bind_port
from sidecar.server.parent_process import ready_line, write_parent_line
from sidecar.version import __version__

log = logging.getLogger(__name__)

BACKLOG = 2048


def serve(settings: Settings) -> None:
    """Serve until shutdown.

    Raises:
        errors.SidecarError: the service cannot start; `EXIT_CODES` has the exit code.
    """
    raise_fd_limit()
    given = server_listeners.take_activated_socket(os.environ)
    if given is not None:
        settings = settings.model_copy(update=server_listeners.socket_address(given))
    logs = ProcessLog(
        settings.log_level,
        as_json=settings.log_format == "json",
        file=log_file(settings.data_dir, settings.port),
    )
    try:
        for name in UNSUPPORTED_YAP_VARIABLES:
            if os.environ.get(name):
                log.warning(
                    "the variable %s has no effect: the value is fixed (docs/live.md); remove it",
                    name,
                )
        for wrong, remedy in unknown_variables():
            log.warning("%s %s", wrong, remedy)
        settings = resolve_token(take_stdin_secret(settings))
        _serve(settings, given)
    finally:
        logs.close()


def _serve(settings: Settings, given: socket.socket | None) -> None:
    place = acquire_port(settings) if given is None else given
    besides = ReservedPorts.of(settings) if isinstance(place, socket.socket) else ReservedPorts()
    if isinstance(place, socket.socket):
        # The port is bound, but not listening yet: the old host retries if a connection is refused,
        # and gives up if it has to wait.
        from sidecar.files import FileWatcher
        from sidecar.server.app import create_app, create_entrance, create_service
        from sidecar.server.http_server import serve_until_shutdown
        from sidecar.server.tls import create_tls

        watch = FileWatcher()
        tls = create_tls(settings, watch)
        service = create_service(settings)
        entrance = create_entrance(settings, watch)
        app = create_app(settings, service, watch, entrance)
        listeners = besides.listeners(service, entrance, watch, tls)
        place = start_listening(place, settings)
    if isinstance(place, port_owner.RunningService):
        log.info(
            "port %d is already served by the service with pid %d, which is used instead of a "
            "new one",
            place.port,
            place.pid,
        )
        write_parent_line(
            _announce_ready(settings, place.port, place.pid, None, reused=True, **place.also)
        )
        return
    port = place.getsockname()[1]

    def tell(also: dict[str, Any]) -> None:
        log.info("serving on %s://%s:%d", "https" if tls else "http", settings.host, port)
        made = settings.token if settings.generate_token else None
        shown = dict(also)
        if tls and tls.fingerprint:
            shown["fingerprint"] = tls.fingerprint
            log.info("SHA-256 fingerprint of the self-signed certificate: %s", tls.fingerprint)
        write_parent_line(_announce_ready(settings, port, os.getpid(), made, **shown))

    with place:
        serve_until_shutdown(app, service, place, tell, tls, listeners)


def acquire_port(settings: Settings) -> socket.socket | port_owner.RunningService:
    """Return a bound socket that does not listen yet, or the service that keeps the port.

    Raises:
        errors.PortInUse: another program has the port and keeps it.
        errors.SettingsInvalid: the address cannot be bound.
    """
    try:
        return bind_port(settings.host, settings.port)
    except errors.PortInUse as error:
        other = port_owner.find_service(settings.host, settings.port)
        if other is None:
            with contextlib.suppress(errors.PortInUse):  # a service that is exiting does not answer
                return bind_port(settings.host, settings.port)
            raise errors.PortInUse(
                f"{error.detail} A program other than vibevoice-asr uses it.", hint=error.hint
            ) from None
        if other.stopping and other.ends():
            return bind_port(settings.host, settings.port)
        same = not other.stopping and other.version == __version__
        if settings.if_port_taken == "reuse" and same:
            return other
        if settings.if_port_taken == "takeover":
            log.warning("stopping the service with pid %d to take over its port", other.pid)
            if other.stop():
                return bind_port(settings.host, settings.port)
        raise errors.PortInUse(
            f"{error.detail} vibevoice-asr {other.version} with pid {other.pid} uses it.",
            hint=(
                "Use that service with --if-port-taken reuse, or replace it with 'takeover'. "
                f"{error.hint}"
            ),
        ) from None


def start_listening(
    place: socket.socket | port_owner.RunningService, settings: Settings
) -> socket.socket | port_owner.RunningService:
    """Return the socket, listening.

    On Linux two sockets can be bound to one port while neither listens. If another process listened
    first, return the result of another `acquire_port`.

    Raises:
        errors.PortInUse, errors.SettingsInvalid: as `acquire_port`.
    """
    while isinstance(place, socket.socket):
        try:
            place.listen(BACKLOG)
        except OSError as error:
            place.close()
            if error.errno != errno.EADDRINUSE:
                raise errors.SettingsInvalid(f"Cannot listen: {error.strerror}.") from None
            place = acquire_port(settings)
        else:
            break
    return place


def _announce_ready(
    settings: Settings, port: int, pid: int, token: SecretStr | None, **more: Any
) -> dict[str, Any]:
    """Return the ready line; ``token``: the token generated at this start, which the service in the
    line must have."""
    return ready_line(
        port=port,
        url=port_owner.service_url(settings.host, port, encrypted=settings.encrypted),
        version=__version__,
        pid=pid,
        token=token.get_secret_value() if token else None,
        **more,
    )


MACOS_OPEN_MAX = 10_240
"""OPEN_MAX of macOS: its limit "infinite" cannot be set."""


def raise_fd_limit() -> None:
    """Raise the limit of file descriptors to the highest that the system allows.

    The usual limit of 1,024 is for programs that use `select`; here every client that follows a job
    needs a descriptor. Child processes inherit the limit. Windows has none.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (most, MACOS_OPEN_MAX):
        if soft in (limit, resource.RLIM_INFINITY) or soft > limit > 0:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        except (ValueError, OSError):
            continue
        return


def fd_limit() -> int | None:
    """Return the limit of file descriptors; `None` if there is no limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
