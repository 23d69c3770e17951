"""Conversion of another gRPC server's YAML configuration. Used by `config convert`.

That server's protocol is the one that `plugins/grpc_stt` implements.

Any value may be null there, which means its default. An unknown key is an error, because its author
expects it to have an effect.
"""

import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sidecar import files
from sidecar.checkpoints import model_repositories
from sidecar.config.settings import MAX_FILE_BYTES, suggestion
from sidecar.errors import SettingsInvalid
from sidecar.installation import needed_for

UNLIMITED_S = 86_400.0
"""Replacement for a timeout that is off in that server: a day, in seconds."""
UNLIMITED_MB = 1 << 20
"""Replacement for the size of recordings that is unlimited in that server: a terabyte."""
MB = 1 << 20
DAY_S = 86_400


TYPES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
"""Types of values, as messages name them."""
PRECISIONS = {
    "default": "auto",
    "auto": "auto",
    **dict.fromkeys(("int8", "int8_float32", "int8_float16", "int8_bfloat16"), "int8"),
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
}
"""Precisions by CTranslate2's names of types."""
LOG_LEVELS = {"critical": "error", "fatal": "error", "warn": "warning"}
"""Log levels by those of Python's logging that have another name here."""
T = TypeVar("T")
DECODE_PROFILES = "decode_profiles"
BEAMS = {"realtime": 1, "accurate": 5}
"""Beams of the decode profiles of this service (engine 'whisper')."""


def bytes_to_mb(value: int) -> int:
    """Return bytes as MB, rounded up, at least 1."""
    return max(1, math.ceil(value / MB))


def to_recordings_mb(value: int) -> int:
    """Return the most bytes of recordings as MB; 0 and less mean no limit there."""
    return bytes_to_mb(value) if value > 0 else UNLIMITED_MB


def to_precision(value: str) -> str:
    """Return the precision of CTranslate2's name of a type."""
    if value not in PRECISIONS:
        raise ValueError(f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[value]


@dataclass(frozen=True, slots=True)
class YamlKey:
    """Meaning of a key: the ``setting`` that it becomes ('' means none), the ``kind`` of its value,
    and a function that converts it; its ValueError names the expected values.

    ``usual``: values that can be ignored, because they are this service's behaviour.
    """

    setting: str = ""
    kind: type = str
    convert: Callable[[Any], Any] | None = None
    usual: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class ConvertedConfig:
    """Converted files: settings by name, and ignored keys that have no counterpart."""

    settings: Mapping[str, Any]
    ignored: Sequence[str]

    def to_toml(self, sources: Sequence[str]) -> str:
        """Return the TOML file; ``sources``: the names of the files that it is converted from."""
        lines = [f"# Settings of vibevoice-asr, from {', '.join(sources)}."]
        if self.ignored:
            lines += ["# Nothing here corresponds to:", *(f"#   {key}" for key in self.ignored)]
        pairs = [f"{name} = {_toml_value(value)}" for name, value in self.settings.items()]
        return "\n".join([*lines, "", *pairs]) + "\n"


def _toml_value(value: Any) -> str:
    """Return a value as JSON, which is TOML except for one character that TOML requires to be
    escaped."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


SERVER_KEYS = {
    "port": YamlKey("grpc_port", int),
    "max_sessions": YamlKey("live_sessions", int),
    "metrics_port": YamlKey("port", int),
    "decode_timeout_sec": YamlKey("live_timeout", float, lambda s: s if s > 0 else UNLIMITED_S),
    "log_metrics": YamlKey(usual=(False,)),
    "session_timeout_sec": YamlKey("live_idle", float),
    "max_chunk_ms": YamlKey(usual=(10_000,)),
    "max_total_buffer_bytes": YamlKey("live_buffer_mb", int, bytes_to_mb),
    "grpc_max_receive_message_bytes": YamlKey(usual=(8 * MB,)),
    "grpc_max_send_message_bytes": YamlKey(usual=(4 * MB,)),
    "sample_rate": YamlKey(usual=(16_000,)),
    **dict.fromkeys(("max_buffer_sec", "max_buffer_bytes", "buffer_overlap_sec"), YamlKey()),
    **dict.fromkeys(("decode_queue_timeout_sec", "partial_decode_interval_sec"), YamlKey()),
    "partial_decode_window_sec": YamlKey(),
    **dict.fromkeys(("max_pending_decodes_per_stream", "max_pending_decodes_global"), YamlKey()),
}
MODEL_KEYS = {
    "name": YamlKey("whisper_model"),
    # CUDA_VISIBLE_DEVICES selects the GPU here.
    "device": YamlKey("device", str, lambda name: "cuda" if name.startswith("cuda") else name),
    "compute_type": YamlKey("precision", str, to_precision),
    "pool_size": YamlKey(usual=(1,)),
    "language_fix": YamlKey("language_fix", bool),
    "language": YamlKey("language"),
    "languages": YamlKey(),
    "task": YamlKey("grpc_task", str, str.lower),
    "default_decode_profile": YamlKey("grpc_profile"),
}
STORAGE_KEYS = {
    "persist_audio": YamlKey("grpc_keep", bool),
    "directory": YamlKey(),
    "queue_max_chunks": YamlKey(usual=(256,)),
    "max_bytes": YamlKey("keep_recordings_mb", int, to_recordings_mb),
    "max_files": YamlKey(usual=(1000,)),
    "max_age_days": YamlKey("job_retention", float, lambda days: days * DAY_S),
}
DECODING_KEYS = {
    "beam_size": YamlKey(),
    "best_of": YamlKey(),
    "patience": YamlKey(usual=(1.0,)),
    "temperature": YamlKey(usual=(0.0,)),
    "length_penalty": YamlKey(usual=(1.0,)),
    "without_timestamps": YamlKey(usual=(True,)),
    "compression_ratio_threshold": YamlKey(usual=(2.4,)),
    "no_speech_threshold": YamlKey(usual=(0.6,)),
    "log_prob_threshold": YamlKey(usual=(-1.0,)),
}
SECTIONS: Mapping[str, Mapping[str, YamlKey]] = {
    "server": SERVER_KEYS,
    "vad": {
        "silence": YamlKey("grpc_silence", float),
        "threshold": YamlKey("grpc_threshold", float),
        **dict.fromkeys(
            ("model_pool_size", "model_prewarm", "model_pool_growth_factor"), YamlKey()
        ),
    },
    "safety": {"speech_rms_threshold": YamlKey(usual=(0, 0.0))},
    "logging": {
        "level": YamlKey("log_level", str, lambda name: LOG_LEVELS.get(name.lower(), name.lower())),
        "file": YamlKey(),
        "faster_whisper_level": YamlKey(),
    },
    "metrics": {
        "expose_api_key_sessions": YamlKey("metrics", bool, lambda shown: "owners" if shown else "")
    },
    "storage": STORAGE_KEYS,
    "health": {
        "window_sec": YamlKey(usual=(60,)),
        "min_events": YamlKey(usual=(5,)),
        "max_timeout_ratio": YamlKey(usual=(0.5,)),
        "min_success_ratio": YamlKey(usual=(0.5,)),
    },
    "model": MODEL_KEYS,
}
"""All keys by section, except those of decode profiles."""


def read(paths: Sequence[Path]) -> ConvertedConfig:
    """Return the combined settings of YAML files; later files win.

    Raises:
        errors.SettingsInvalid: a file cannot be read, or has an unknown key.
    """
    return convert_yaml_config([(str(path), _yaml(path)) for path in paths])


def _yaml(path: Path) -> object:
    with needed_for("Files in YAML", "grpc"):
        import yaml
    data = files.read(path, MAX_FILE_BYTES)
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SettingsInvalid(f"The file {path} cannot be read: {reason}.") from None


def convert_yaml_config(contents: Sequence[tuple[str, object]]) -> ConvertedConfig:
    """Convert files, each given as a name for messages and its content; later files win.

    Raises:
        errors.SettingsInvalid: a key is unknown, or its value is not valid.
    """
    settings: dict[str, Any] = {}
    ignored: list[str] = []
    for name, content in contents:
        for section, keys in _sections(name, content):
            profile = section.partition(".")[2]
            if profile and profile not in BEAMS:
                ignored.append(section)
            for key, value in keys.items():
                where = f"{section}.{key}"
                yaml_key = _lookup_known(SECTIONS.get(section, DECODING_KEYS), key, name, section)
                if value is None or section in ignored:
                    continue
                if yaml_key.setting:
                    settings[yaml_key.setting] = _convert_value(yaml_key, value, name, where)
                elif value not in (yaml_key.usual or (BEAMS.get(profile),)):
                    ignored.append(where)
    return ConvertedConfig(_resolve_combinations(settings), tuple(dict.fromkeys(ignored)))


def _sections(name: str, content: object) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the sections of a file; each decode profile is one."""
    sections: list[tuple[str, Mapping[str, Any]]] = []
    for section, value in _mapping(content, name, "the file of sections").items():
        _lookup_known({**SECTIONS, DECODE_PROFILES: {}}, section, name)
        keys = _mapping(value, name, f"'{section}'")
        if section != DECODE_PROFILES:
            sections.append((section, keys))
            continue
        for profile, options in keys.items():
            where = f"{section}.{profile}"
            sections.append((where, _mapping(options, name, f"'{where}'")))
    return sections


def _mapping(value: object, name: str, what: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise SettingsInvalid(f"{name}: {what} has to be a section of keys with values.")
    return value or {}


def _lookup_known(keys: Mapping[str, T], key: object, name: str, section: str = "") -> T:
    if isinstance(key, str) and key in keys:
        return keys[key]
    where = f"{section}.{key}" if section else str(key)
    elsewhere = [f"{one}.{key}" for one, others in SECTIONS.items() if section and key in others]
    hint = suggestion(str(key), [*keys])
    raise SettingsInvalid(
        f"{name}: there is no key '{where}'.",
        hint=f"Did you mean '{elsewhere[0]}'?" if elsewhere else hint,
    )


def _convert_value(key: YamlKey, value: Any, name: str, where: str) -> Any:
    try:
        fits = isinstance(value, int | float if key.kind is float else key.kind)
        if not fits or (isinstance(value, bool) and key.kind is not bool):
            raise ValueError(TYPES[key.kind])
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(TYPES[float])
        return value if key.convert is None else key.convert(value)
    except ValueError as error:
        raise SettingsInvalid(
            f"{name}: '{where}' is {reprlib.repr(value)}, and has to be {error}."
        ) from None


def _resolve_combinations(settings: dict[str, Any]) -> dict[str, Any]:
    """Resolve keys that depend on each other.

    A language counts only if it is fixed. A model is one of Whisper's, by its name or by its
    folder. Limits of recordings count only if audio is recorded; an age of 0 and less is no limit.
    """
    size, age_s = settings.pop("keep_recordings_mb", UNLIMITED_MB), settings.pop("job_retention", 0)
    if settings.get("grpc_keep"):
        settings |= {"keep_jobs": True, "keep_recordings_mb": size}
        settings |= {"job_retention": age_s} if age_s > 0 else {}
    fixed = settings.pop("language_fix", False)
    if not fixed:
        settings.pop("language", None)
    model = settings.get("whisper_model")
    if model is not None:
        settings["live_engine"] = "whisper"
        if model not in model_repositories.WHISPER_MODELS and Path(model).parts[1:]:
            settings["model_path"] = settings.pop("whisper_model")
    return settings
