"""What a plugin brings to the service: routes, ports, engines, settings, commands, checks.

A plugin is a folder with one `Plugin` in its `__init__.py`, which imports next to nothing: what it
brings is imported by the functions here, when it is needed. `sidecar/plugins/__init__.py` lists the
plugins; nothing else of the core imports one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket

    import typer
    from fastapi import APIRouter

    from sidecar.api.http.auth_gate import PortRules, SendRefusal, TicketGrant
    from sidecar.api.http.error_responses import ErrorRenderer
    from sidecar.api.http.middleware import HttpMiddleware
    from sidecar.auth.authentication import AccessControl, OneTimeCodes
    from sidecar.auth.tls import CertificatePair
    from sidecar.config.setting_types import SettingsGroup
    from sidecar.config.settings import Settings
    from sidecar.engines.engine_selection import EngineChoice
    from sidecar.file_watcher import FileWatcher
    from sidecar.interfaces.engine_interface import PluginEngine, TtsSpec
    from sidecar.service.facade import Service, ServicePart, SharedJobs
    from sidecar.service.system_checks import CheckFinding


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRoutes:
    """Routes of a plugin at the port of HTTP, and how they refuse."""

    routers: Sequence[APIRouter]
    dialects: Mapping[str, ErrorRenderer] = field(default_factory=dict)
    """Renderers of errors by the beginning of a path; other paths have the native one."""
    refusals: Mapping[str, SendRefusal] = field(default_factory=dict)
    """Refusals of WebSockets by path; on other paths a handshake is refused with 403."""
    tidy_prefixes: tuple[str, ...] = ()
    """As in `middleware.TidyPaths`."""
    middleware: tuple[type[HttpMiddleware], ...] = ()
    """Around all requests at this port but those that begin before the imports are done."""


class ProtocolListener(Protocol):
    """Listener of a protocol. `close` is called last, also if `start` was not called or failed."""

    async def start(self) -> dict[str, Any]:
        """Start to serve; return the fields for the ready line and `/health`.

        Raises:
            errors.SidecarError: it cannot start, such as `errors.PortInUse`.
        """

    def stop_accepting(self) -> None:
        """Refuse new clients with an error, because the service shuts down; current clients
        continue."""

    async def drain(self, grace_s: float) -> None:
        """Let current clients receive their last messages, for at most ``grace_s`` seconds."""

    async def close(self) -> None:
        """Stop serving and release all resources."""


@dataclass(frozen=True, slots=True)
class PortParts:
    """What the listener of a port is built from."""

    settings: Settings
    service: Service
    access: AccessControl
    watcher: FileWatcher
    socket: socket.socket
    """Bound, not listening."""
    tls: CertificatePair | None
    """Files of TLS, if it is on."""
    serve_http: Callable[[AccessControl, Sequence[APIRouter], PortRules], ProtocolListener]
    """Return the listener of an HTTP application of its own with these routes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginPort:
    """A port beside that of HTTP."""

    field: str
    """Its name in the ready line and in `/health`."""
    setting: str
    """The setting that turns it on."""
    address: Callable[[Settings], tuple[str, int] | None]
    """Host and port to listen on; port 0 takes a free one, `None`: the port is off."""
    create_listener: Callable[[PortParts], ProtocolListener]
    """Raises `errors.SettingsInvalid`: a package or a file is missing, or settings contradict each
    other."""
    hint: str | None = None
    """The remedy if another program has the port; by default to choose another by the flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginVoices:
    """TTS engines of a plugin, and their voices."""

    choose: Callable[[Settings], tuple[EngineChoice[TtsSpec] | None, str]]
    """Returns the engine of a service, `None` if there is none, and the reason. Raises
    `errors.EngineUnavailable`."""
    pull: Callable[[VoiceRequest], None]
    """The command `pull voice`."""
    installed: Callable[[Settings], InstalledVoices | None]
    """Returns the downloaded voices, `None` without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceRequest:
    """Arguments of `pull voice`: '' or `None` where the user named nothing; ``listed``: list the
    voices instead."""

    name: str
    language: str
    folder: Path | None
    source: str
    listed: bool


@dataclass(frozen=True, slots=True)
class InstalledVoices:
    """Downloaded voices: their names, and the bytes in their folder."""

    names: str
    bytes: int
    folder: Path


def _no_findings(settings: Settings) -> Iterable[CheckFinding]:
    """Find nothing."""
    return ()


def _no_commands(app: typer.Typer) -> None:
    """Add nothing to the command line."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plugin:
    """A part of the service that can be left out."""

    name: str
    requires: tuple[str, ...] = ()
    """Plugins that it imports: it is off without them."""
    settings: type[SettingsGroup] | None = None
    """Its settings; code of the plugin reads them by `SettingsGroup.of`."""
    errors: ModuleType | None = None
    """Its errors, one class each. It is imported with the plugin: each process knows the errors of
    others by their codes."""
    http: Callable[[Service, OneTimeCodes[TicketGrant]], HttpRoutes] | None = None
    """Builds its routes; one-time codes admit browsers to WebSockets."""
    ports: tuple[PluginPort, ...] = ()
    engines: tuple[PluginEngine, ...] = ()
    """ASR engines, each to be named by the setting `engine`."""
    voices: PluginVoices | None = None
    """Its TTS engines; those of the first plugin that has any count."""
    create_part: Callable[[Service], ServicePart | None] | None = None
    """Creates what a service has of it once, if anything; called before the ready line. Raises
    `errors.SettingsInvalid`."""
    shared_jobs: Callable[[Settings], SharedJobs | None] | None = None
    """Returns the jobs that this service shares with others, `None` if it shares none; the first
    plugin that does counts. Raises `errors.SettingsInvalid`."""
    add_commands: Callable[[typer.Typer], None] = _no_commands
    """Adds its commands to the command line; there they are also while it is off."""
    foreign_variables: Mapping[str, str] = field(default_factory=dict)
    """Settings by their variables in the environment of the system that it replaces."""
    fixed_variables: tuple[str, ...] = ()
    """Variables of that system whose values are fixed here; one that is set gets a warning."""
    checks: Callable[[Settings], Iterable[CheckFinding]] = _no_findings
    """Findings of the command `doctor`."""
