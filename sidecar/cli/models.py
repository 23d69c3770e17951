"""Commands `list` and `rm`: models on this machine."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from sidecar import errors
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.common_options import argument, option
from sidecar.cli.output import PROGRAM, print_error_line
from sidecar.cli.pull import confirm, is_somebody_there
from sidecar.config.settings import load_settings
from sidecar.installation import is_english_only_build

if TYPE_CHECKING:
    from sidecar.checkpoints.installed_checkpoints import InstalledModel

LIST_HELP = f"""
List the downloaded models: name, size, commit, folder.

Example: `{PROGRAM} list`
"""
RM_HELP = f"""
Delete a downloaded model, after a question.

A model that a running service uses is not deleted.

Examples:

* `{PROGRAM} rm whisper:small`
* `{PROGRAM} rm vibevoice --yes`
"""


def list_models() -> None:
    """Print a line for each model in the Hugging Face cache and one for the pulled voices. The
    folder of `model_path` has a line if it is none of these."""
    from sidecar.checkpoints.installed_checkpoints import installed_models
    from sidecar.checkpoints.installed_voices import PulledVoices
    from sidecar.tts.tts_engine_selection import voices_folder

    models = [*installed_models()]
    rows = [(one.name, one.bytes, one.commit[:12] or "incomplete", one.folder) for one in models]
    settings = load_settings()
    own = settings.model_path and settings.model_path.resolve()
    pulled = [one.folder.resolve() for one in models]
    listed = own and any(one.is_relative_to(own) or own.is_relative_to(one) for one in pulled)
    if own and own.is_dir() and not listed:
        files = {file.resolve() for file in own.rglob("*") if file.is_file()}  # a cache has links
        size = sum(file.stat().st_size for file in files)
        rows.append(("model_path", size, "not pulled", own))
    stored = PulledVoices.read(voices_folder(settings))
    if voices := stored.whole():
        names = ", ".join(f"{one.name} ({one.language})" for one in voices)
        rows.append(("voice", stored.largest_bytes(len(voices)), names, stored.folder))
    if not rows:
        print_error_line(f"None. The embedded engine needs none; {_others()}.")
    width = max((len(name) for name, *_ in rows), default=0)
    for name, size, what, folder in rows:
        print(f"{name:<{width}}  {size / 1e9:5.1f} GB  {what}  {folder}")


def _others() -> str:
    """Return what `pull` gets that this installation can use."""
    if is_english_only_build():
        return f"'{PROGRAM} pull voice' gets a voice for conversations"
    return f"'{PROGRAM} pull' gets others"


async def remove_model(
    name: str = argument(..., "Name as in 'list' or 'pull'.", metavar="NAME"),
    *,
    yes: bool = option(False, "Do not ask.", "--yes", "-y"),
) -> int:
    """Delete a model's folder in the Hugging Face cache; return the exit code.

    Raises:
        errors.CheckpointNotFound: it does not exist, or was not pulled.
        errors.PullRunning: it is being downloaded.
        errors.EngineUnavailable: a service may use it.
    """
    from sidecar.checkpoints.installed_checkpoints import installed_models, resolve_repository
    from sidecar.checkpoints.resumable_download import HubCacheDestination, locked

    installed = list(installed_models())
    model = next((one for one in installed if one.name == name), None)
    if model is None:
        with suppress(errors.RepositoryNotFound):  # for example the path of a folder
            repository, _ = resolve_repository(name)
            model = next((one for one in installed if one.repository == repository), None)
    if model is None:
        raise errors.CheckpointNotFound(
            f"There is no downloaded model '{name}'.",
            hint=f"List the models: {PROGRAM} list",
        )
    await _refuse_in_use(model)
    if not yes and not is_somebody_there():
        raise typer.BadParameter("Nobody is there to be asked: say --yes.")
    question = f"Delete {model.name}, {model.bytes / 1e9:.1f} GB, in {model.folder}? [y/N] "
    if not yes and not confirm(question):
        print_error_line("Nothing was deleted.")
        return 1
    place = HubCacheDestination(model.folder, "none")
    with locked(place):
        shutil.rmtree(model.folder)
    shutil.rmtree(place.lock.parent, ignore_errors=True)
    print_error_line(f"Deleted {model.name}: {model.bytes / 1e9:.1f} GB.")
    return 0


async def _refuse_in_use(model: InstalledModel) -> None:
    """Raise if the service of the settings has the engine that this model is for. A TTS model
    counts as used, as the service does not report its TTS engine."""
    from sidecar.cli.remote_service import service_at

    with suppress(errors.ServiceUnreachable, errors.SettingsInvalid):
        there = ServiceTarget().or_ours()
        async with service_at(there.server or "", trust=there.trust) as client:
            health = await client.health()
        if model.engine in ("", health["engine"], health["live_engine"]):
            raise errors.EngineUnavailable(
                f"The service at {there.server} may have '{model.name}' in use.",
                hint="Stop it first, or start it with another engine.",
            )
