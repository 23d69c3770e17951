"""Deletion of a downloaded model: by its name, and never during its download."""

from __future__ import annotations

import shutil
from contextlib import suppress

from sidecar import errors, files
from sidecar.checkpoints.installed_checkpoints import (
    InstalledModel,
    installed_models,
    resolve_repository,
)
from sidecar.checkpoints.resumable_download import HubCacheDestination, explained_by, locked


def installed_model(name: str) -> InstalledModel:
    """Return the downloaded model with a name as in 'list' or 'pull'; its download may be
    incomplete.

    Raises:
        errors.CheckpointNotFound: there is none.
    """
    installed = list(installed_models())
    model = next((one for one in installed if one.name == name), None)
    if model is None:
        with suppress(errors.RepositoryNotFound):  # for example the path of a folder
            repository, _ = resolve_repository(name)
            model = next((one for one in installed if one.repository == repository), None)
    if model is None:
        raise errors.CheckpointNotFound(
            f"There is no downloaded model '{name}'.",
            hint="List the models: vibevoice-asr list",
        )
    return model


def delete_model(model: InstalledModel) -> None:
    """Delete a model from the Hugging Face cache.

    Raises:
        errors.PullRunning: it is being downloaded.
        errors.CheckpointUnwritable: a file cannot be deleted.
    """
    if model.folder.is_symlink():
        raise errors.CheckpointUnwritable(
            f"{model.folder} is a link, which is not followed.", hint="Delete it by hand."
        )
    destination = HubCacheDestination(model.folder, "none")
    leaving = model.folder.with_name(f".deleted-{model.folder.name}")
    with (
        explained_by("", (), "Check its permissions, and close what reads it."),
        locked(destination),
    ):
        shutil.rmtree(leaving, ignore_errors=True)  # of a deletion that was interrupted
        files.replace(model.folder, leaving)  # so that half a model is none
        shutil.rmtree(leaving)
    shutil.rmtree(destination.lock.parent, ignore_errors=True)
