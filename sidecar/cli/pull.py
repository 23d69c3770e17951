"""`vibevoice-asr pull`: download a checkpoint; and what `serve` does where one is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import engines, errors
from sidecar.checkpoints import weights
from sidecar.checkpoints.checkpoint import Checkpoint
from sidecar.checkpoints.layout import CTRANSLATE2, TRANSFORMERS, VOXTRAL, Layout, wanted
from sidecar.cli.said import INTERRUPTED, complain, say
from sidecar.config.settings import Settings
from sidecar.engines import facts
from sidecar.engines.choice import remedy
from sidecar.engines.facts import VIBEVOICE

if TYPE_CHECKING:
    from sidecar.checkpoints.growing import Meter


_ENGINE_OF = {CTRANSLATE2.weights: facts.WHISPER, VOXTRAL.weights: facts.VOXTRAL}
"""Whose extra downloads a layout; VibeVoice's the others."""


def run(name: str, revision: str | None, to: Path | None) -> int:
    """Download it and print its folder; the exit code."""
    try:
        repository, layout = wanted(name)
        checkpoint = fetch(repository, revision, to, layout)
    except errors.SidecarError as error:
        return complain(error)
    except KeyboardInterrupt:
        say("Stopped. The same command goes on where it was.")
        return INTERRUPTED
    print(checkpoint.folder)
    return 0


def fetch(
    repo: str,
    revision: str | None = None,
    to: Path | None = None,
    layout: Layout = TRANSFORMERS,
) -> Checkpoint:
    """Download a checkpoint, with a bar where somebody looks on.

    Raises:
        errors.EngineUnavailable: what downloads is not installed.
        errors.SidecarError: see `checkpoints.download.pull`.
    """
    if find_spec("huggingface_hub") is None:
        raise errors.EngineUnavailable(
            "To download, the package huggingface_hub is needed, which is not installed.",
            hint=remedy(_ENGINE_OF.get(layout.weights, VIBEVOICE)),
        )
    # Otherwise it asks the hub for a list of programs to look for here, and names what it finds.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from sidecar.checkpoints.download import pull

    with shown() as meter:
        return pull(repo, revision, to, meter, layout)


def provide(settings: Settings) -> None:
    """Before `serve`: download what VibeVoice-ASR lacks, if that was allowed or is now.

    Does nothing where a download is not the remedy; the start says what is.

    Raises:
        errors.SidecarError: the download was wanted and failed.
    """
    lacking = any(engines.missing(spec) for spec in engines.ENGINES if spec.name == VIBEVOICE)
    if settings.model_path is not None or lacking:
        return
    try:
        weights.find_checkpoint(None)
    except (errors.CheckpointNotFound, errors.CheckpointIncomplete):
        what = f"{weights.REPOSITORY_GB} GB from {weights.REPOSITORY}"
        if settings.allow_download:
            say(f"Downloading {what} first, as --allow-download says.")
            fetch(weights.REPOSITORY)
        elif _agrees(f"Download {what}? [y/N] "):
            fetch(weights.REPOSITORY)
    except errors.BadCheckpoint:
        return


def _agrees(question: str) -> bool:
    """What somebody at a terminal answers; no, where nobody is there."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return False
    print(question, end="", file=sys.stderr, flush=True)  # stdout is the host's
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def shown() -> Iterator[Meter]:
    """A bar on a terminal; in a pipe only what is worth a line."""
    from sidecar.checkpoints.growing import Meter

    class Plain(Meter):
        def notice(self, message: str) -> None:
            say(message)

    if sys.stderr is None or not sys.stderr.isatty():
        yield Plain()
        return
    from rich import progress as bars
    from rich.console import Console

    with bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None, visible=False)

        class Shown(Plain):
            def begin(self, what: str, total: int) -> None:
                bar.update(task, description=what, total=total, visible=True)

            def advance(self, count: int) -> None:
                bar.advance(task, count)

        yield Shown()
