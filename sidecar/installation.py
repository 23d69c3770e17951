"""Installation: install commands of extras, missing packages, and detection of the executable."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from sidecar.errors.service_errors import SettingsInvalid

DISTRIBUTION = "vibevoice-asr"


def is_frozen() -> bool:
    """Return whether this process runs from the self-contained executable, into which nothing can
    be installed."""
    return bool(getattr(sys, "frozen", False))


ENGLISH_ONLY_BUILD_HINT = (
    "This build knows English only. Another language takes a server that knows it (setting "
    "'upstream'), or another build (docs/building.md)."
)
"""For an `is_english_only_build`, into which no other engine can be installed."""


def is_english_only_build() -> bool:
    """Return whether this is an executable without an engine for other languages."""
    return is_frozen() and find_spec("tokenizers") is None  # VibeVoice-ASR and Whisper need it


def is_build_without_voices() -> bool:
    """Return whether this is an executable without the synthesizers of `pull voice`. It may have a
    folder of their package, with the models of the embedded engine alone."""
    package = find_spec("moonshine_voice") if is_frozen() else None
    return is_frozen() and (package is None or package.origin is None)


def voice_hint() -> str:
    """Return how a service without a TTS engine gets one."""
    if is_build_without_voices():
        return (
            "This build has no voices: set voice_engine to 'speech' and speech_url to a server "
            "with OpenAI's /v1/audio/speech, or use a build with voices (docs/building.md)."
        )
    return "Install one with vibevoice-asr pull voice, then restart the service."


def own_command(module: str, *words: str, frozen: tuple[str, ...] = ()) -> list[str]:
    """Return the command that starts another process of this program: ``module`` with this
    interpreter, and ``words`` as options of the interpreter.

    An executable cannot run modules by name: it gets the arguments ``frozen`` instead.
    """
    if is_frozen():
        return [sys.executable, *frozen]
    return [sys.executable, *words, "-m", module]


def install_command(extra: str) -> str:
    """Return the command that installs the packages of an extra ("" means the base alone).

    It installs in the way in which this installation was made: no package index has the project, so
    its name alone finds nothing, or the package of a stranger. The command contains no path of this
    machine, because hints also go to clients.
    """
    wanted = f"[{extra}]" if extra else ""
    if is_frozen():
        return (
            f"the executable has no extra '{extra}': install with Python instead, "
            f"pip install '.{wanted}' in the folder of the source"
        )
    if Path(__file__).parents[1].joinpath("pyproject.toml").exists():
        return f"pip install -e '.{wanted}' in the folder of the source"
    try:
        came = json.loads(metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        came = {}
    if "dir_info" in came:
        return f"pip install '.{wanted}' in the folder of the source"
    if "vcs_info" in came:
        vcs = came["vcs_info"]
        return f"pip install '{DISTRIBUTION}{wanted} @ {vcs['vcs']}+{came['url']}'"
    if "archive_info" in came:
        file = came["url"].rpartition("/")[2]
        return f"pip install './{file}{wanted}' in the folder of that file"
    return (
        f"pip install --no-index --find-links FOLDER '{DISTRIBUTION}{wanted}' "
        "(FOLDER: where the wheels are)"
    )


@contextmanager
def needed_for(what: str, extra: str = "auth") -> Iterator[None]:
    """Wrap imports of optional packages that ``what`` need.

    Raises:
        errors.SettingsInvalid: a package is not installed; the hint has the command.
    """
    try:
        yield
    except ImportError as error:
        raise SettingsInvalid(
            f"{what} require the extra '{extra}', which is not installed (missing: "
            f"{error.name or error}).",
            hint=install_command(extra),
        ) from None
