"""What goes into the two executables. No PyInstaller here: the tests read this without it."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from small_ffmpeg import FOLDER as FFMPEG_FOLDER
from small_ffmpeg import built_ffmpeg
from wanted import packages_not_wanted

from sidecar.checkpoints import onnx_models
from sidecar.diarization import speaker_models
from sidecar.live.runtime import vad
from sidecar.plugins import PLUGINS

ROOT = Path(__file__).resolve().parents[1]
ENTRY = ROOT / "sidecar" / "main.py"
GIT_LIMIT_S = 10

EXTRAS = tuple(filter(None, os.environ.get("EXTRAS", "auth,people,whisper").split(",")))
"""Extras inside; a name that is no extra is that of a distribution."""
VOICES = os.environ.get("VOICES") == "1"
"""Whether the synthesizers of moonshine-voice are in the CPU flavour, too: 48 MB."""

HIDDEN = (
    "_cffi_backend",  # cryptography's compiled part asks for it
    "fastapi_offline",  # looked up for its files, never imported
    "imageio_ffmpeg.binaries",
    "onnxruntime",
    "python_multipart.multipart",
    "sidecar.workers.worker_main",
    "uvicorn.lifespan.on",  # uvicorn finds its parts by their names
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.httptools_impl",
)
"""Modules that are found by name at run time, so that PyInstaller cannot see them."""

VOICES_HIDDEN = ("moonshine_voice",)
"""The library with the synthesizers; the rest of that package is looked up for its files."""

WHISPER_HIDDEN = ("faster_whisper", "huggingface_hub")
"""The same for Whisper, and for downloads of its models."""

GPU_HIDDEN = (
    "accelerate.hooks",
    "bitsandbytes.nn.modules",
    "huggingface_hub",
    "py3langid.langid",
    "safetensors.torch",
    "transformers.audio_utils",
)
"""The same for the engine of the GPU flavour."""

MODELS = (
    "audioflamingo3", "auto", "encoder_decoder", "qwen2", "vibevoice_acoustic_tokenizer",
    "vibevoice_asr",
)  # fmt: skip
"""What transformers imports of its models for VibeVoice-ASR, by names; the other 400 stay out."""

BY_NAME = ("generation", "integrations", "quantizers", *(f"models.{name}" for name in MODELS))
"""Packages of transformers whose modules it imports by names."""

NEVER = (
    "IPython", "PIL", "_pytest", "anyio.pytest_plugin", "attr", "av", "chardet", "distutils",
    "hf_xet", "hypothesis", "lib2to3", "lxml", "matplotlib", "mypy", "numpy.f2py",
    "numpy.testing", "pandas", "pip", "py", "pydoc_data", "pytest", "setuptools", "test", "tests",
    "tkinter", "uvloop",
)  # fmt: skip
"""What hooks would bring, and nothing here uses at run time. `av` has libx264 inside (GPL), and
108 MB: `STAND_INS` has what imports of it get. `hf_xet` is for downloads that we do ourselves."""

STAND_INS = {"av": Path(__file__).with_name("stand_ins") / "av.py"}
"""Modules of ours in place of packages that are imported and not used."""

COLOURED = ("python",)
"""What of pygments' 300 languages rich has to colour here: its own tracebacks."""

OF_THE_SYSTEM = ("libmvec.so",)
"""Libraries of glibc, which has to be as new as the build machine's anyway. PyInstaller leaves its
others where they are."""

GPL = ("espeakng_loader",)
"""What may not be part of a program that is given away under another licence."""

NOT_EVEN_GPU = (
    "Cython", "audioread", "cython", "librosa", "llvmlite", "numba", "openai", "scipy", "sklearn",
)  # fmt: skip
"""Installed with the extra, or by developers; nothing imports them for a transcription."""

HEAVY = (
    "accelerate", "bitsandbytes", "librosa", "llvmlite", "numba", "py3langid", "safetensors",
    "scipy", "sklearn", "sympy", "torch", "transformers",
)  # fmt: skip
"""The `vibevoice` extra and what comes with it: in the GPU flavour only."""

FILES = {
    "moonshine_voice": ("assets/tiny-en/*", "assets/endgame_nagg_nell.wav"),
    "fastapi_offline": ("static/swagger-ui-bundle.js", "static/swagger-ui.css"),
    "opencc": ("config/*.json", "dictionary/*.txt"),
    "sidecar": tuple(f"api/static/{part}*.*" for part in ("", "conversation/", "vendor/")),
}
"""Data by package: the weights and the sample; the pages at /docs and /; Chinese characters."""

GPU_FILES = {"py3langid": ("data/*",)}
"""The model that knows which language a transcript is in."""

PAGE_CLIENT = ("clients/js/src", "sidecar/api/static/client")
"""The JavaScript client: where it is in the checkout, and where the page has it."""

LIBRARIES = {"moonshine_voice": ("*moonshine*.so", "*moonshine*.dylib", "*.dll")}
"""Shared libraries that are opened by path, by package."""

STRIPPED = (
    "libpython*",
    "python*/lib-dynload/*.so",
    "cryptography/hazmat/bindings/*.so",
    "ctranslate2/*.so",  # 67 MB of debugging information
    "httptools/parser/*.so",
    "moonshine_voice/*.so",
    "tokenizers/*.so",
    "yaml/*.so",
)
"""Libraries that lose their symbols on Linux, 77 MB in all. Others of wheels are left as they are:
they have next to none, strip damages some that auditwheel moved, and the licence of the one in
ctranslate2.libs (Intel MKL) allows no change."""

EMBEDDED_MODELS = (speaker_models.SEGMENTATION, speaker_models.ENCODER, vad.SILERO_MODEL)
"""What is read out of that library where its voices are not inside."""


ENTITLEMENTS = Path(__file__).with_name("entitlements.plist")
"""What the hardened runtime of macOS allows the executable (docs/signing.md)."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """One executable. ``voices``: it has the library with the synthesizers."""

    name: str
    hidden: tuple[str, ...]
    excluded: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    voices: bool


def flavour(name: str) -> Flavour:
    """The flavour called ``name``: ``cpu`` or ``gpu``, as far as its packages are installed.

    Raises:
        KeyError: there is none of that name.
    """
    return {"cpu": _cpu, "gpu": _gpu}[name]()


def _cpu() -> Flavour:
    hidden = [*HIDDEN, *_plugin_engines(), *_whisper()]
    if VOICES:
        hidden += VOICES_HIDDEN
    excluded = [*NEVER, *GPL, *HEAVY, *_lexers(), *_messages(), *packages_not_wanted(EXTRAS)]
    if not VOICES:
        excluded += VOICES_HIDDEN
    return Flavour("vibevoice-asr", tuple(hidden), tuple(excluded), FILES, VOICES)


def _whisper() -> tuple[str, ...]:
    """Modules of Whisper, if it is to be inside and is installed."""
    wanted = "whisper" in EXTRAS and find_spec("faster_whisper") is not None
    return WHISPER_HIDDEN if wanted else ()


def _plugin_engines() -> list[str]:
    """Modules of the engines of plugins, which workers import by names."""
    engines = [engine for plugin in PLUGINS for engine in plugin.engines]
    return [engine.spec.factory.partition(":")[0] for engine in engines]


def _gpu() -> Flavour:
    by_name = [module for package in BY_NAME for module in _modules(f"transformers.{package}")]
    models = _folder("transformers") / "models"
    others = [path.name for path in models.glob("*/") if path.name not in (*MODELS, "__pycache__")]
    return Flavour(
        "vibevoice-asr-gpu",
        (*HIDDEN, *VOICES_HIDDEN, *_plugin_engines(), *_whisper(), *GPU_HIDDEN, *by_name),
        (
            *(*NEVER, *GPL, *NOT_EVEN_GPU, *_lexers()),
            *packages_not_wanted((*EXTRAS, "vibevoice")),
            *(f"transformers.models.{name}" for name in sorted(others)),
        ),
        {**FILES, **GPU_FILES},
        voices=True,
    )


def data(flavour: Flavour) -> Iterator[tuple[Path, str]]:
    """Data files of a flavour, each with its folder inside the build.

    Raises:
        FileNotFoundError: a package lacks what it is known to bring.
    """
    for package, patterns in flavour.files.items():
        for pattern in patterns:
            yield from _matching(package, pattern)
    source, target = PAGE_CLIENT
    yield from ((path, target) for path in sorted((ROOT / source).glob("*.js")))


def libraries(flavour: Flavour) -> Iterator[tuple[Path, str]]:
    """Shared libraries of a flavour, each with its folder inside the build.

    Raises:
        FileNotFoundError: a package has none of its libraries.
    """
    for package, patterns in LIBRARIES.items() if flavour.voices else ():
        found = [(path, package) for pattern in patterns for path in _folder(package).glob(pattern)]
        if not found:
            raise FileNotFoundError(f"{package} has none of {', '.join(patterns)}")
        yield from found


def write_embedded_models(flavour: Flavour, folder: Path) -> list[tuple[Path, str]]:
    """Write the models that the library has inside to a file, and return it with its folder in the
    build; nothing for a flavour that has the library.

    Raises:
        KeyError: the library lacks a model.
    """
    return [] if flavour.voices else [(write_models_file(folder), "moonshine_voice")]


def write_models_file(folder: Path) -> Path:
    """Write the models that the library has inside to a file in a folder, and return its path.

    Raises:
        KeyError: the library lacks a model.
    """
    found = onnx_models.find_embedded_models(EMBEDDED_MODELS)
    path = folder / f"moonshine{onnx_models.MODELS_SUFFIX}"
    path.write_bytes(b"".join(found[one] for one in EMBEDDED_MODELS))
    return path


def ffmpeg(built: Path = FFMPEG_FOLDER) -> Path:
    """The decoder that goes along: the small one if it was built (`make ffmpeg`, in the folder
    ``built``) or is named by the variable FFMPEG, else that of imageio-ffmpeg.

    Raises:
        FileNotFoundError: imageio-ffmpeg was built without one (its wheels have it).
    """
    return built_ffmpeg(built) or bundled_ffmpeg()


@cache
def bundled_ffmpeg() -> Path:
    """The decoder in the wheel of imageio-ffmpeg.

    Raises:
        FileNotFoundError: it was built without one.
    """
    for path in sorted((_folder("imageio_ffmpeg") / "binaries").glob("ffmpeg-*")):
        return path
    raise FileNotFoundError("imageio_ffmpeg has no executable")


def revision() -> str:
    """The git revision of the tree, with ``dirty`` where it has changes; '' without git."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_LIMIT_S,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _lexers() -> list[str]:
    """Pygments' languages that nobody colours; what lists them stays."""
    _, *found = _modules("pygments.lexers")
    return [name for name in found if name.rpartition(".")[2] not in ("_mapping", *COLOURED)]


def _messages() -> tuple[str, ...]:
    """protobuf, which onnxruntime brings and nothing uses where there are no gRPC and no traces."""
    return () if {"grpc", "otel"} & {*EXTRAS} else ("google.protobuf",)


def is_of_the_system(name: str) -> bool:
    """Whether a library that PyInstaller found is better taken from the system it runs on."""
    return Path(name).name.startswith(OF_THE_SYSTEM)


def is_link_to_wheel(name: str, kind: str) -> bool:
    """Whether a file of the build is a link to a library in a folder that auditwheel made. What
    needs that library finds it there; bundlers that follow links would pack it twice."""
    return kind == "SYMLINK" and Path(name).name == name and ".so" in name


def is_ffmpeg(name: str) -> bool:
    """Whether a file of the build is the decoder."""
    return Path(name).match("imageio_ffmpeg/binaries/ffmpeg-*")


def to_strip(inside: Path) -> list[str]:
    """The libraries in the folder `_internal` of a build whose symbols go."""
    found = {path for pattern in STRIPPED for path in inside.glob(pattern)}
    return sorted(str(path) for path in found if not path.is_symlink())


def _modules(package: str) -> list[str]:
    """All modules right in a package, found without importing it."""
    top, _, rest = package.partition(".")
    folder = _folder(top).joinpath(*rest.split("."))
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {package}")
    names = [path.stem for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return [package, *(f"{package}.{name}" for name in names)]


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def _matching(package: str, pattern: str) -> Iterator[tuple[Path, str]]:
    folder = _folder(package)
    found = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
    if not found:
        raise FileNotFoundError(f"{package} has no {pattern}")
    for path in found:
        yield path, path.parent.relative_to(folder.parent).as_posix()
