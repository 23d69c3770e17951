"""Conversion of another gRPC server's YAML configuration. Used by `config convert`.

That server's protocol is the one that `protocols/grpc_stt` implements.

Any value may be null there, which means its default. An unknown key is an error, because its author
expects it to have an effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sidecar import files
from sidecar.checkpoints import installed_checkpoints
from sidecar.config.settings import MAX_FILE_BYTES, is_yaml, suggestion
from sidecar.errors import SettingsInvalid
from sidecar.installation import install_command, is_frozen

DEEPEST = 20
"""Maximum nesting of a YAML file; keys use two levels."""
UNLIMITED_S = 86_400.0
"""Replacement for a timeout that is off in that server: a day, in seconds."""
MB = 1 << 20
DAY_S = 86_400


def to_integer(value: Any) -> int:
    """Return an integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def to_number(value: Any) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return value


def to_text(value: Any) -> str:
    """Return text."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def to_boolean(value: Any) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def to_metrics(value: Any) -> str:
    """Return the value of the setting `metrics`."""
    return "owners" if to_boolean(value) else ""


def to_timeout_s(value: Any) -> float:
    """Return seconds; zero and less mean `UNLIMITED_S`."""
    seconds = to_number(value)
    return seconds if seconds > 0 else UNLIMITED_S


def bytes_to_mb(value: Any) -> int:
    """Return bytes as MB, rounded up, at least 1."""
    return max(1, math.ceil(to_integer(value) / MB))


def bytes_to_mb_or_unlimited(value: Any) -> int:
    """Return bytes as MB, rounded up; 0 (unlimited) for zero and less."""
    return bytes_to_mb(value) if to_integer(value) > 0 else 0


def days_to_seconds(value: Any) -> float:
    """Return days as seconds; 0 (never) for zero and less."""
    return max(0.0, to_number(value)) * DAY_S


def to_log_level(value: Any) -> str:
    """Return the log level of a level of Python's logging."""
    known = {"critical": "error", "fatal": "error", "warn": "warning"}
    return known.get(to_text(value).lower(), to_text(value).lower())


def to_device(value: Any) -> str:
    """Return the device; CUDA_VISIBLE_DEVICES selects the GPU here."""
    return "cuda" if to_text(value).startswith("cuda") else to_text(value)


def to_precision(value: Any) -> str:
    """Return the precision of CTranslate2's name of a type."""
    known = {
        "default": "auto",
        "auto": "auto",
        "int8": "int8",
        "int8_float32": "int8",
        "int8_float16": "int8",
        "int8_bfloat16": "int8",
        "float16": "fp16",
        "bfloat16": "bf16",
        "float32": "fp32",
    }
    if to_text(value) not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return known[value]


def to_task(value: Any) -> str:
    """Return the task: transcription or translation."""
    if to_text(value).lower() not in ("transcribe", "translate"):
        raise ValueError("transcribe or translate")
    return to_text(value).lower()


Value = TypeVar("Value")
Converter = Callable[[Any], Any]
"""Converter of a value of that server; its ValueError names the expected type."""


@dataclass(frozen=True, slots=True)
class YamlKey:
    """Meaning of a key: the ``setting`` that it becomes ('' means none) and its converter ``read``.

    ``usual``: values that can be ignored, because they are this service's behaviour.
    """

    setting: str = ""
    read: Converter | None = None
    usual: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class ConvertedConfig:
    """Converted files: settings by name, and ignored keys that have no counterpart."""

    settings: Mapping[str, Any]
    unheeded: Sequence[str]


def to_decode_profile(value: Any) -> str:
    """Return the decode profile: one of `DECODE_PROFILE_DEFAULTS`."""
    if value not in DECODE_PROFILE_DEFAULTS:
        raise ValueError(f"one of {', '.join(DECODE_PROFILE_DEFAULTS)}")
    return str(value)


SERVER_KEYS = {
    "port": YamlKey("grpc_port", to_integer),
    "max_sessions": YamlKey("live_sessions", to_integer),
    "metrics_port": YamlKey("port", to_integer),
    "decode_timeout_sec": YamlKey("live_timeout", to_timeout_s),
    "log_metrics": YamlKey(usual=(False,)),
    "session_timeout_sec": YamlKey("live_idle", to_number),
    "max_buffer_sec": YamlKey(),
    "max_buffer_bytes": YamlKey(),
    "max_chunk_ms": YamlKey(usual=(10_000,)),
    "partial_decode_interval_sec": YamlKey(),
    "partial_decode_window_sec": YamlKey(),
    "max_pending_decodes_per_stream": YamlKey(),
    "max_pending_decodes_global": YamlKey(),
    "max_total_buffer_bytes": YamlKey("live_buffer_mb", bytes_to_mb),
    "decode_queue_timeout_sec": YamlKey(),
    "buffer_overlap_sec": YamlKey(),
    "grpc_max_receive_message_bytes": YamlKey(usual=(8 * MB,)),
    "grpc_max_send_message_bytes": YamlKey(usual=(4 * MB,)),
    "sample_rate": YamlKey(usual=(16_000,)),
}
MODEL_KEYS = {
    "name": YamlKey("whisper_model", to_text),
    "device": YamlKey("device", to_device),
    "compute_type": YamlKey("precision", to_precision),
    "pool_size": YamlKey(usual=(1,)),
    "language_fix": YamlKey("language_fix", to_boolean),
    "language": YamlKey("language", to_text),
    "languages": YamlKey(),
    "task": YamlKey("grpc_task", to_task),
    "default_decode_profile": YamlKey("grpc_profile", to_decode_profile),
}
STORAGE_KEYS = {
    "persist_audio": YamlKey("capture", to_boolean),
    "directory": YamlKey(),
    "queue_max_chunks": YamlKey(usual=(256,)),
    "max_bytes": YamlKey("capture_mb", bytes_to_mb_or_unlimited),
    "max_files": YamlKey(usual=(1000,)),
    "max_age_days": YamlKey("capture_age", days_to_seconds),
}
SECTIONS: Mapping[str, Mapping[str, YamlKey]] = {
    "server": SERVER_KEYS,
    "vad": {
        "silence": YamlKey("grpc_silence", to_number),
        "threshold": YamlKey("grpc_threshold", to_number),
        "model_pool_size": YamlKey(),
        "model_prewarm": YamlKey(),
        "model_pool_growth_factor": YamlKey(),
    },
    "safety": {"speech_rms_threshold": YamlKey(usual=(0, 0.0))},
    "logging": {
        "level": YamlKey("log_level", to_log_level),
        "file": YamlKey(),
        "faster_whisper_level": YamlKey(),
    },
    "metrics": {"expose_api_key_sessions": YamlKey("metrics", to_metrics)},
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
DECODE_PROFILE_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "realtime": {"beam_size": 1, "best_of": 1},
    "accurate": {"beam_size": 5, "best_of": 5},
}
"""Decode profiles of this service, with their options (engine 'whisper')."""
DECODING_DEFAULTS: Mapping[str, object] = {
    "beam_size": None,
    "best_of": None,
    "patience": 1.0,
    "temperature": 0.0,
    "length_penalty": 1.0,
    "without_timestamps": True,
    "compression_ratio_threshold": 2.4,
    "no_speech_threshold": 0.6,
    "log_prob_threshold": -1.0,
}
"""Options of a decode profile, with the values that both servers use by default."""
DECODE_PROFILES_SECTION = "decode_profiles"


def read(paths: Sequence[Path]) -> ConvertedConfig:
    """Return the combined settings of YAML files; later files win.

    Raises:
        errors.SettingsInvalid: a file cannot be read, or has an unknown key.
    """
    for path in paths:
        if not is_yaml(path):
            raise SettingsInvalid(f"The file {path} is not YAML.", hint="Rename it to NAME.yaml.")
    return convert_yaml_config([(str(path), _yaml(path)) for path in paths])


def _yaml(path: Path) -> object:
    try:
        import yaml
    except ImportError:
        raise SettingsInvalid(
            f"The file {path} is YAML, and the package 'pyyaml' is missing.",
            hint="This executable has it not; 'config convert' elsewhere makes TOML of it."
            if is_frozen()
            else install_command("grpc"),
        ) from None
    data = files.read(path, MAX_FILE_BYTES)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise SettingsInvalid(f"{path}: aliases ('*{event.anchor}') are not supported.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise SettingsInvalid(f"{path}: the nesting is deeper than that of any key.")
        _refuse_twins(path, yaml.compose(data, Loader=yaml.SafeLoader))
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise SettingsInvalid(f"The file {path} cannot be read: {said}.") from None


def _refuse_twins(path: Path, node: Any) -> None:
    """Refuse a duplicated key, whose first value YAML would drop silently."""
    seen = set()
    for pair in node.value if node is not None and node.id == "mapping" else ():
        key, value = pair
        if key.value in seen and key.id == "scalar":
            line = key.start_mark.line + 1
            raise SettingsInvalid(f"{path}: the key '{key.value}' is duplicated (line {line}).")
        if key.id == "scalar":
            seen.add(key.value)
        _refuse_twins(path, value)


def convert_yaml_config(contents: Sequence[tuple[str, object]]) -> ConvertedConfig:
    """Convert files, each given as a name for messages and its content; later files win.

    Raises:
        errors.SettingsInvalid: a key is unknown, or its value is not valid.
    """
    settings: dict[str, Any] = {}
    unheeded: list[str] = []
    for name, content in contents:
        for section, keys in _sections(name, content):
            if section == DECODE_PROFILES_SECTION:
                unheeded += _unused_profiles(name, keys)
                continue
            for word, value in keys.items():
                where = f"{section}.{word}"
                key = _lookup_known(SECTIONS[section], word, name, section)
                if value is None:
                    continue
                if key.setting and key.read is not None:
                    settings[key.setting] = _convert_value(key.read, value, name, where)
                elif value not in key.usual:
                    unheeded.append(where)
    return ConvertedConfig(_resolve_combinations(settings), tuple(dict.fromkeys(unheeded)))


def _sections(name: str, content: object) -> list[tuple[str, Mapping[str, Any]]]:
    if content is None:
        return []
    if not isinstance(content, Mapping):
        raise SettingsInvalid(f"{name}: the file has no sections such as 'server:'.")
    found = []
    for section, keys in content.items():
        _lookup_known({**SECTIONS, DECODE_PROFILES_SECTION: None}, section, name)
        if keys is not None and not isinstance(keys, Mapping):
            raise SettingsInvalid(f"{name}: '{section}' has to be a section of keys with values.")
        found.append((section, keys or {}))
    return found


def _lookup_known(words: Mapping[str, Value], word: object, name: str, section: str = "") -> Value:
    if isinstance(word, str) and word in words:
        return words[word]
    where = f"{section}.{word}" if section else str(word)
    elsewhere = [f"{one}.{word}" for one, keys in SECTIONS.items() if section and word in keys]
    hint = suggestion(str(word), [*words])
    raise SettingsInvalid(
        f"{name}: there is no key '{where}'.",
        hint=f"Did you mean '{elsewhere[0]}'?" if elsewhere else hint,
    )


def _convert_value(read: Converter, value: object, name: str, where: str) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise SettingsInvalid(
            f"{name}: '{where}' is {value!r:.60}, and has to be {error}."
        ) from None


def _unused_profiles(name: str, profiles: Mapping[str, Any]) -> list[str]:
    unheeded = []
    for profile, options in profiles.items():
        where = f"{DECODE_PROFILES_SECTION}.{profile}"
        if options is not None and not isinstance(options, Mapping):
            raise SettingsInvalid(f"{name}: '{where}' has to be a section of keys with values.")
        for option in options or {}:
            _lookup_known(DECODING_DEFAULTS, option, name, where)
        if profile not in DECODE_PROFILE_DEFAULTS:
            unheeded.append(where)
            continue
        done = {**DECODING_DEFAULTS, **DECODE_PROFILE_DEFAULTS[profile]}
        unheeded += [
            f"{where}.{option}"
            for option, value in (options or {}).items()
            if value is not None and value != done[option]
        ]
    return unheeded


def _resolve_combinations(settings: dict[str, Any]) -> dict[str, Any]:
    """Resolve keys that depend on each other.

    A language counts only if it is fixed. A model is one of Whisper's, by its name or by its
    folder.
    """
    fixed = settings.pop("language_fix", False)
    if not fixed:
        settings.pop("language", None)
    model = settings.get("whisper_model")
    if model is not None:
        settings["live_engine"] = "whisper"
        if model not in installed_checkpoints.WHISPER_MODELS and Path(model).parts[1:]:
            settings["model_path"] = settings.pop("whisper_model")
    return settings
