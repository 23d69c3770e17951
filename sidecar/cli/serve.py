"""Commands `serve` and `node`: settings, log, port (or the service that has it), ready line."""

import logging
import os
import socket
from contextlib import ExitStack, suppress
from typing import Any, NoReturn

from sidecar import errors, plugins
from sidecar.child_processes import end_children_with_this_process
from sidecar.cli.output import INTERRUPTED, report_error
from sidecar.config.secret_settings import resolve_token, take_stdin_secret
from sidecar.config.settings import Settings, foreign_variable, unknown_variables
from sidecar.observability.logs import ProcessLog, log_file
from sidecar.plugin import Plugin
from sidecar.server import listeners as server_listeners
from sidecar.server import service_process
from sidecar.server.listeners import RunningService, bind_port, reserve_ports
from sidecar.version import __version__

log = logging.getLogger(__name__)


def run(given: dict[str, Any]) -> NoReturn:
    """Serve over HTTP until stopped.

    Flags win over the environment, the environment over the file, the file over the defaults. The
    file is config.toml in the folder vibevoice-asr of your configuration folder, or the one that
    VIBEVOICE_CONFIG or --config names.

    Examples:

    * `vibevoice-asr serve --port 9000 --keep-alive 1h`
    * `vibevoice-asr --engine scripted`: return made-up text at once, for developers of hosts
    """
    with ExitStack() as at_end:
        end = _serve(given, at_end)
    # Python would end the threads that remain, and one that is within a C extension aborts.
    os._exit(end if isinstance(end, int) else report_fatal(end))


def _serve(given: dict[str, Any], at_end: ExitStack) -> int | errors.SidecarError:
    """Serve until shutdown; return the exit code, or why the service does not start. ``at_end``
    closes its log."""
    try:
        if given:  # typer, which declares the flags, is imported already
            from sidecar.cli.common_options import refuse_plain_secrets

            refuse_plain_secrets(given)
        settings = plugins.load_settings(**given)
        if settings.engine == "vibevoice":
            from sidecar.cli import pull

            pull.download_if_missing(settings)
        return _start_service(settings, at_end)
    except errors.SidecarError as error:
        return error
    except Exception:  # the parent process gets a line and an exit code in any case
        log.exception("internal error at the start of the service")
        return errors.SidecarError()
    except KeyboardInterrupt:
        return INTERRUPTED


def _start_service(settings: Settings, at_end: ExitStack) -> int:
    """Open the log, read the secrets, and serve until shutdown; return the exit code.

    Raises:
        errors.SidecarError: the service cannot start; `EXIT_CODES` has the exit code.
    """
    service_process.raise_fd_limit()
    end_children_with_this_process()
    given = server_listeners.take_activated_socket(os.environ)
    if given is not None:
        host, port, *_ = given.getsockname()  # access rules depend on the settings
        settings = settings.model_copy(update={"host": str(host), "port": int(port)})
    logs = ProcessLog(
        settings.log_level,
        as_json=settings.log_format == "json",
        file=log_file(settings.data_dir, settings.port),
        exclusive=not settings.port,  # services at any free port have one name
    )
    at_end.callback(logs.close)
    for plugin in plugins.enabled(settings):
        _log_foreign_variables(plugin)
        if plugin.name in plugins.of_others():
            log.info("the plugin '%s' of another distribution is on", plugin.name)
    for wrong, remedy in unknown_variables(
        settings, plugins.settings_of_plugins_off(type(settings))
    ):
        log.warning("%s %s", wrong, remedy)
    settings = resolve_token(take_stdin_secret(settings))
    return _serve_on_port(settings, given)


def _log_foreign_variables(plugin: Plugin) -> None:
    """Log the variables of the system that a plugin replaces: other programs have such names."""
    for variable, setting in plugin.foreign_variables.items():
        if value := foreign_variable(variable):
            message = "the variable %s is %s: the setting %s, unless that is set elsewhere"
            log.info(message, variable, value, setting)
    for variable in plugin.fixed_variables:
        if os.environ.get(variable):
            log.warning(
                "the variable %s has no effect: the value is fixed (docs/live.md); remove it",
                variable,
            )


def _serve_on_port(settings: Settings, given: socket.socket | None) -> int:
    """Serve on the socket ``given``, or on the port of the settings unless another service keeps
    it; return the exit code."""
    place = acquire_port(settings) if given is None else given
    if isinstance(place, socket.socket):
        besides = reserve_ports(settings)
        # The port is bound, but not listening yet: the old host retries if a connection is refused,
        # and gives up if it has to wait.
        from sidecar.auth.tls import create_tls
        from sidecar.engines.engine_selection import unpack_packaged_model
        from sidecar.file_watcher import FileWatcher
        from sidecar.server import app as server_app
        from sidecar.server.http_server import serve_until_shutdown

        watcher = FileWatcher()
        tls = create_tls(settings, watcher)
        unpack_packaged_model(settings)
        service = server_app.create_service(settings)
        access = server_app.create_access_control(settings, watcher)
        app = server_app.create_staged_app(service, watcher, access)
        pair = tls.pair if tls else None
        listeners = server_app.create_listeners(settings, service, access, watcher, besides, pair)
        place = start_listening(place, settings)
    if isinstance(place, RunningService):
        used = "port %d: the service with pid %d is used instead of a new one"
        log.info(used, place.port, place.pid)
        also = _of_reused(settings, place)
        line = service_process.ready_line(settings, place.port, place.pid, **also)
        service_process.write_parent_line(line)
        return 0
    port = place.getsockname()[1]

    def tell(also: dict[str, Any]) -> None:
        log.info("serving on %s://%s:%d", "https" if tls else "http", settings.host, port)
        shown = {"device": service.fleet.files.device, **also}
        if tls and tls.fingerprint:
            shown["fingerprint"] = tls.fingerprint
            log.info("SHA-256 fingerprint of the self-signed certificate: %s", tls.fingerprint)
        if settings.generate_token and settings.token:
            shown["token"] = settings.token.get_secret_value()
        service_process.write_parent_line(
            service_process.ready_line(settings, port, os.getpid(), **shown)
        )

    with place:
        return serve_until_shutdown(app, service, place, tell, tls, listeners)


def _of_reused(settings: Settings, service: RunningService) -> dict[str, Any]:
    """Return what the ready line says of a running service: it may have TLS without these settings,
    or the other way round."""
    encrypted = service.certificate is not None
    url = server_listeners.service_url(settings.host, service.port, encrypted=encrypted)
    also: dict[str, Any] = {"url": url, **service.also, "reused": True}
    if service.certificate is not None:
        from sidecar.auth.tls import self_signed_fingerprint

        if fingerprint := self_signed_fingerprint(settings, service.certificate):
            also["fingerprint"] = fingerprint
    return also


def acquire_port(settings: Settings) -> socket.socket | RunningService:
    """Return a bound socket that does not listen yet, or the service that keeps the port.

    Raises:
        errors.PortInUse: another program has the port and keeps it.
        errors.SettingsInvalid: the address cannot be bound.
    """
    try:
        return bind_port(settings.host, settings.port)
    except errors.PortInUse as error:
        other = server_listeners.find_service(settings.host, settings.port)
        if other is None:
            with suppress(errors.PortInUse):  # a service that is exiting does not answer
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
            hint="Use that service with --if-port-taken reuse, or replace it with 'takeover'. "
            f"{error.hint}",
        ) from None


def start_listening(
    socket_or_service: socket.socket | RunningService, settings: Settings
) -> socket.socket | RunningService:
    """Return the socket, listening.

    If another process listened first, return the result of another `acquire_port`.

    Raises:
        errors.PortInUse, errors.SettingsInvalid: as `acquire_port`.
    """
    while isinstance(socket_or_service, socket.socket):
        try:
            server_listeners.listen(socket_or_service)
            break
        except errors.PortInUse:
            socket_or_service.close()
            socket_or_service = acquire_port(settings)
    return socket_or_service


def report_fatal(error: errors.SidecarError) -> int:
    """Tell the parent process and the person why the service does not start; return the exit
    code."""
    service_process.write_parent_line(service_process.fatal_line(error))
    return report_error(error)
