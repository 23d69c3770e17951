"""Client of the Hugging Face hub through huggingface_hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # lazily there

from sidecar import errors
from sidecar.checkpoints import resumable_download
from sidecar.checkpoints.checkpoint import PICKLE_SUFFIXES, is_commit
from sidecar.checkpoints.model_repositories import CheckpointLayout
from sidecar.version import __version__

HUB_TIMEOUT_S = 10.0
"""Timeout of connecting and of each read; the default of huggingface_hub."""


@dataclass(frozen=True, slots=True)
class HubSnapshot:
    """Files of a repository at a commit."""

    repository: str
    commit: str
    files: tuple[resumable_download.HubFile, ...]


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids requests to the hub."""
    return huggingface_hub.is_offline_mode()


def list_snapshot(repo: str, revision: str, layout: CheckpointLayout) -> HubSnapshot:
    """List the files to download, with their checksums.

    Raises:
        errors.CheckpointUnsafe: the repository has only pickled weights.
        errors.CheckpointUnsupported: the repository has no weights.
        errors.RepositoryNotFound: ``repo`` is not a valid name.
        errors.HubUnreachable: the response is not that of a hub.
    """
    try:
        info = huggingface_hub.HfApi().model_info(
            repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_S
        )
        siblings = info.siblings or []
        suffixes = {Path(sibling.rfilename).suffix for sibling in siblings}
        files = tuple(
            resumable_download.HubFile(
                sibling.rfilename,
                int(sibling.size or 0),
                resumable_download.SHA256 if sibling.lfs else resumable_download.GIT,
                str(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id),
            )
            for sibling in siblings
            if "/" not in sibling.rfilename and layout.fetched(sibling.rfilename)
        )
        if not is_commit(info.sha or ""):
            raise ValueError(f"no commit: {info.sha!r}")
        if is_commit(revision) and info.sha != revision:
            raise ValueError(f"another commit: {info.sha}")
    except hub_errors.HFValidationError:
        raise errors.RepositoryNotFound(f"'{repo}' is not the name of a model.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise errors.HubUnreachable(
            f"The server at {constants.ENDPOINT} is not a model hub.",
            hint="Check HF_ENDPOINT, the proxy, and whether the network requires a login.",
        ) from None
    if not any(layout.is_large(file.name) for file in files):
        if suffixes & PICKLE_SUFFIXES:
            raise errors.CheckpointUnsafe(
                f"{repo} has pickled weights only, which are not downloaded."
            )
        raise errors.CheckpointUnsupported(f"{repo} has no weights ({layout.weights}).")
    return HubSnapshot(repo, str(info.sha), files)


def read_hub_file(
    snapshot: HubSnapshot, file: resumable_download.HubFile, start: int
) -> Iterator[tuple[int, bytes]]:
    """Read a file from the hub, as `resumable_download.ChunkReader`.

    Raises:
        DownloadInterrupted: the connection failed, or the server is busy.
    """
    url = huggingface_hub.hf_hub_url(snapshot.repository, file.name, revision=snapshot.commit)
    headers = build_hf_headers(library_name="vibevoice-asr", library_version=__version__)
    headers["Accept-Encoding"] = "identity"  # ranges count the bytes of the file itself
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with huggingface_hub.get_session().stream(
            "GET", url, headers=headers, timeout=HUB_TIMEOUT_S, follow_redirects=True
        ) as response:
            if response.is_error:
                response.read()
            huggingface_hub.hf_raise_for_status(response)
            yield from resumable_download.chunks(response, start, file.size)
    except httpx2.TransportError as error:
        raise resumable_download.DownloadInterrupted from error
    except hub_errors.HfHubHTTPError as error:
        if error.response.status_code in resumable_download.PASSING:
            raise resumable_download.DownloadInterrupted from error
        raise


@contextmanager
def hub_errors_as_ours(repo: str, revision: str) -> Iterator[None]:
    """Translate errors of the hub, the network and the disk."""
    with resumable_download.explained_by(
        constants.ENDPOINT, (resumable_download.DownloadInterrupted, httpx2.HTTPError)
    ):
        try:
            yield
        except hub_errors.GatedRepoError:
            raise errors.RepositoryForbidden(
                f"{repo} requires that you accept its terms."
            ) from None
        except hub_errors.RepositoryNotFoundError:
            raise errors.RepositoryNotFound(
                f"The model hub has no {repo}, or it is private.",
                hint=(
                    "Check the name; for a private one, set HF_TOKEN to a token that may read it."
                ),
            ) from None
        except hub_errors.RevisionNotFoundError:
            raise errors.RepositoryNotFound(
                f"{repo} has no revision '{revision}'.", hint="Use the newest: --revision main"
            ) from None
        except hub_errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status in (401, 403):
                raise errors.RepositoryForbidden(
                    f"The model hub denies access to {repo} ({status})."
                ) from None
            raise errors.HubUnreachable(
                f"{constants.ENDPOINT} answered {status} for {repo}.",
                hint="Try again later; the same command resumes the download.",
            ) from None
