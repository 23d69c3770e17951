"""Plugins: what a desktop sidecar does not need, each a folder that can be deleted with its line.

Plugins of other distributions have the entry point `vibevoice_asr.plugins`. `load_settings` reads
the settings of the core and of the plugins that are on.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.config import settings as config
from sidecar.config.server_settings import ALL_PLUGINS
from sidecar.config.settings import Settings
from sidecar.errors import SettingsInvalid
from sidecar.plugin import Plugin, PluginVoices
from sidecar.plugins import (
    conversation,
    grpc_stt,
    load_test,
    monitor,
    openai,
    realtime,
    s2s,
    shared_jobs,
    tracing,
    transformers_asr,
    upstream,
    vvv,
    wyoming,
    yap,
)

if TYPE_CHECKING:
    from sidecar.service.facade import SharedJobs

PLUGINS: tuple[Plugin, ...] = (
    conversation.PLUGIN,
    openai.PLUGIN,
    realtime.PLUGIN,
    vvv.PLUGIN,
    yap.PLUGIN,
    s2s.PLUGIN,
    grpc_stt.PLUGIN,
    wyoming.PLUGIN,
    upstream.PLUGIN,
    transformers_asr.PLUGIN,
    shared_jobs.PLUGIN,
    tracing.PLUGIN,
    monitor.PLUGIN,
    load_test.PLUGIN,
)
"""Literal imports: a packager does not see names that are built from strings."""
ENTRY_POINTS = "vibevoice_asr.plugins"


@functools.cache
def installed() -> dict[str, Plugin]:
    """Return the plugins that are here by name, those of other distributions last.

    Raises:
        errors.SettingsInvalid: one of another distribution cannot be imported.
    """
    found = {plugin.name: plugin for plugin in PLUGINS}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            plugin = entry.load()
        except Exception as error:  # whatever its modules do when they are imported
            raise SettingsInvalid(
                f"The plugin '{entry.name}' ({entry.value}) cannot be imported: {error!r}.",
                hint="Repair or uninstall its distribution.",
            ) from error
        if not isinstance(plugin, Plugin) or plugin.name in found:
            raise SettingsInvalid(
                f"The entry point '{entry.name}' ({entry.value}) is no `sidecar.plugin.Plugin`, or "
                "one of a name that is taken.",
                hint="Repair or uninstall its distribution.",
            )
        found[plugin.name] = plugin
    return found


def plugins_on(choice: Sequence[str]) -> list[Plugin]:
    """Return the plugins that are on by the setting `plugins`.

    Raises:
        errors.SettingsInvalid: there is no plugin of a name, or it needs one that is off.
    """
    here = installed()
    for word in choice:
        if word != ALL_PLUGINS and (name := word.removeprefix("-")) not in here:
            raise SettingsInvalid(
                f"There is no plugin '{name}'.", hint=config.suggestion(name, list(here))
            )
    off = {word[1:] for word in choice if word.startswith("-")}
    named = {word for word in choice if not word.startswith("-")}
    if not named or ALL_PLUGINS in named:
        while more := {one.name for one in here.values() if off & {*one.requires}} - off:
            off |= more  # what needs a plugin is off with it
        return [plugin for plugin in here.values() if plugin.name not in off]
    on = [plugin for plugin in here.values() if plugin.name in named - off]
    for plugin in on:
        if lacking := {*plugin.requires} - {one.name for one in on}:
            raise SettingsInvalid(
                f"The plugin '{plugin.name}' requires {', '.join(sorted(lacking))}.",
                hint="Name them in the setting 'plugins', too, or leave it out.",
            )
    return on


def voices_of(plugins: Iterable[Plugin]) -> PluginVoices | None:
    """Return the TTS engines of the first plugin that has any; `None` if none has."""
    return next(filter(None, (plugin.voices for plugin in plugins)), None)


def of_others() -> list[str]:
    """Return the names of plugins that other distributions bring.

    Raises:
        errors.SettingsInvalid: as `installed`.
    """
    return list(installed())[len(PLUGINS) :]


def enabled(settings: Settings) -> list[Plugin]:
    """Return the plugins of a service with these settings."""
    return plugins_on(settings.plugins)


def shared_jobs_of(settings: Settings) -> SharedJobs | None:
    """Return the jobs that a service with these settings shares with others, `None` if it shares
    none.

    Raises:
        errors.SettingsInvalid: the settings of the database or of the role are not valid.
    """
    found = (one.shared_jobs(settings) for one in enabled(settings) if one.shared_jobs is not None)
    return next(filter(None, found), None)


def settings_class(choice: Sequence[str] = (ALL_PLUGINS,)) -> type[Settings]:
    """Return the class of the settings of the core and of the plugins that are on."""
    return settings_of(tuple(plugins_on(choice)))


def own_settings_class() -> type[Settings]:
    """Return the class of the settings of the core and of all plugins that are listed here."""
    return settings_of(PLUGINS)


@functools.cache
def settings_of(plugins: tuple[Plugin, ...]) -> type[Settings]:
    """Return the class of the settings of the core and of these plugins.

    Raises:
        errors.SettingsInvalid: two have a setting of one name.
    """
    taken = {*Settings.model_fields}
    for plugin in plugins:
        own = {*plugin.settings.model_fields} if plugin.settings is not None else set()
        if both := taken & own:
            raise SettingsInvalid(
                f"The plugin '{plugin.name}' has settings that there are already: "
                f"{', '.join(sorted(both))}.",
                hint=f"Turn it off: --plugins=-{plugin.name}.",
            )
        taken |= own
    groups = [plugin.settings for plugin in plugins if plugin.settings is not None]
    engines = [engine for plugin in plugins for engine in plugin.engines]
    variables = {word: name for one in plugins for word, name in one.foreign_variables.items()}
    return Settings.with_plugins(groups, engines, variables)


def settings_of_plugins_off(settings_type: type[Settings]) -> dict[str, str]:
    """Return the plugins that are off, by the names of their settings, which ``settings_type``
    lacks."""
    known = settings_type.model_fields
    return {
        name: plugin.name
        for plugin in installed().values()
        for name in (plugin.settings.model_fields if plugin.settings is not None else ())
        if name not in known
    }


def load_settings(**flags: Any) -> Settings:
    """Load the settings; ``flags`` that were given take precedence.

    Raises:
        errors.SettingsInvalid: a value is not valid, or belongs to a plugin that is off.
    """
    choice = config.read_plugin_choice(**flags)
    settings_type = settings_class(choice)
    for name, plugin in settings_of_plugins_off(settings_type).items():
        if name in flags:
            raise SettingsInvalid(
                f"'{name}' is a setting of the plugin '{plugin}', which is off.",
                hint="Remove it, or turn the plugin on by the setting 'plugins'.",
            )
    return config.read_settings(settings_type, **flags)
