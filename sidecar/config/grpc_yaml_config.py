"""Conversion of another gRPC server's YAML configuration. Used by `config convert`.

It is the one whose wire `protocols/grpc_stt` speaks.

Values there may be null (as usual) everywhere. A key that is not known is an error: it is a
mistake, and whoever made it believes that something is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sidecar import files
from sidecar.checkpoints import whisper_checkpoints
from sidecar.config.config_files import LARGEST, is_yaml, suggestion
from sidecar.errors import SettingsInvalid
from sidecar.version import is_frozen

DEEPEST = 20
"""Levels of a YAML file, of which two mean something."""
FOREVER_S = 86_400.0
"""Where there is no limit there: a day."""
MB = 1 << 20
DAY_S = 86_400


def whole(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def number(value: Any) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return value


def text(value: Any) -> str:
    """Text."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def truth(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def patience(value: Any) -> float:
    """Seconds, for ever where that is zero or less."""
    seconds = number(value)
    return seconds if seconds > 0 else FOREVER_S


def from_ms(value: Any) -> float:
    """Seconds of milliseconds."""
    return number(value) / 1000


def in_mb(value: Any) -> int:
    """Whole MB of bytes, at least one."""
    return max(1, math.ceil(whole(value) / MB))


def in_mb_or_any(value: Any) -> int:
    """The same; zero and less are no limit."""
    return in_mb(value) if whole(value) > 0 else 0


def count_or_any(value: Any) -> int:
    """How many; zero and less are no limit."""
    return max(0, whole(value))


def from_days(value: Any) -> float:
    """Seconds; zero and less are no limit."""
    return max(0.0, number(value)) * DAY_S


def severity(value: Any) -> str:
    """Levels of Python's logging."""
    known = {"critical": "error", "fatal": "error", "warn": "warning"}
    return known.get(text(value).lower(), text(value).lower())


def device(value: Any) -> str:
    """Which GPU it is, is said by CUDA_VISIBLE_DEVICES here."""
    return "cuda" if text(value).startswith("cuda") else text(value)


def precision(value: Any) -> str:
    """CTranslate2's names of types."""
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
    if text(value) not in known:
        raise ValueError(f"one of {', '.join(known)}")
    return known[value]


def task(value: Any) -> str:
    """What becomes of speech."""
    if text(value).lower() not in ("transcribe", "translate"):
        raise ValueError("transcribe or translate")
    return text(value).lower()


Value = TypeVar("Value")
Read = Callable[[Any], Any]
"""A value there → here; a ValueError says what it should have been."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a key there means: a ``setting`` here, by ``read``; none where it is ''. ``usual``: what
    it may say without being heeded, because that is what is done."""

    setting: str = ""
    read: Read | None = None
    usual: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Meant:
    """What files say: settings by name, and keys that nothing here corresponds to."""

    settings: Mapping[str, Any]
    unheeded: Sequence[str]


def profile(value: Any) -> str:
    """One of the two that there are here."""
    if value not in PROFILES:
        raise ValueError(f"one of {', '.join(PROFILES)}")
    return str(value)


SERVER = {
    "port": Key("grpc_port", whole),
    "max_sessions": Key("live_sessions", whole),
    "metrics_port": Key("port", whole),
    "decode_timeout_sec": Key("live_timeout", patience),
    "log_metrics": Key(usual=(False,)),
    "session_timeout_sec": Key("live_idle", number),
    "max_buffer_sec": Key(),
    "max_buffer_bytes": Key(),
    "max_chunk_ms": Key("live_chunk", from_ms),
    "partial_decode_interval_sec": Key(),
    "partial_decode_window_sec": Key(),
    "max_pending_decodes_per_stream": Key(),
    "max_pending_decodes_global": Key(),
    "max_total_buffer_bytes": Key("live_buffer_mb", in_mb),
    "decode_queue_timeout_sec": Key(),
    "buffer_overlap_sec": Key(),
    "grpc_max_receive_message_bytes": Key("grpc_message_mb", in_mb),
    "grpc_max_send_message_bytes": Key(usual=(4 * MB,)),
    "sample_rate": Key(usual=(16_000,)),
}
MODEL = {
    "name": Key("whisper_model", text),
    "device": Key("device", device),
    "compute_type": Key("precision", precision),
    "pool_size": Key(usual=(1,)),
    "language_fix": Key("language_fix", truth),
    "language": Key("language", text),
    "languages": Key(),
    "task": Key("grpc_task", task),
    "default_decode_profile": Key("grpc_profile", profile),
}
STORAGE = {
    "persist_audio": Key("capture", truth),
    "directory": Key("capture_dir", text),
    "queue_max_chunks": Key("capture_queue", whole),
    "max_bytes": Key("capture_mb", in_mb_or_any),
    "max_files": Key("capture_files", count_or_any),
    "max_age_days": Key("capture_age", from_days),
}
SECTIONS: Mapping[str, Mapping[str, Key]] = {
    "server": SERVER,
    "vad": {
        "silence": Key("grpc_silence", number),
        "threshold": Key("grpc_threshold", number),
        "model_pool_size": Key(),
        "model_prewarm": Key(),
        "model_pool_growth_factor": Key(),
    },
    "safety": {"speech_rms_threshold": Key(usual=(0, 0.0))},
    "logging": {
        "level": Key("log_level", severity),
        "file": Key(),
        "faster_whisper_level": Key(),
    },
    "metrics": {"expose_api_key_sessions": Key("metrics_owners", truth)},
    "storage": STORAGE,
    "health": {
        "window_sec": Key("health_window", number),
        "min_events": Key("health_min_events", whole),
        "max_timeout_ratio": Key("health_max_timeout_ratio", number),
        "min_success_ratio": Key("health_min_success_ratio", number),
    },
    "model": MODEL,
}
"""All keys but those of `PROFILES`."""
PROFILES: Mapping[str, Mapping[str, object]] = {
    "realtime": {"beam_size": 1, "best_of": 1},
    "accurate": {"beam_size": 5, "best_of": 5},
}
"""The decode profiles that there are here, and what each does (engine 'whisper')."""
DECODING: Mapping[str, object] = {
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
"""What may stand in a profile, and what both do."""
DECODE_PROFILES = "decode_profiles"


def read(paths: Sequence[Path]) -> Meant:
    """Return what YAML files say together; later ones win.

    Raises:
        errors.SettingsInvalid: one cannot be read, or has a key that is not known.
    """
    for path in paths:
        if not is_yaml(path):
            raise SettingsInvalid(f"The file {path} is no YAML.", hint="Name it NAME.yaml.")
    return meant([(str(path), _yaml(path)) for path in paths])


def _yaml(path: Path) -> object:
    try:
        import yaml
    except ImportError:
        raise SettingsInvalid(
            f"The file {path} is YAML, and the package 'pyyaml' is missing.",
            hint="This executable has it not; 'config convert' elsewhere makes TOML of it."
            if is_frozen()
            else "pip install 'vibevoice-asr[grpc]'",
        ) from None
    data = files.read(path, LARGEST)
    try:
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise SettingsInvalid(f"{path}: aliases ('*{event.anchor}') are not read.")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise SettingsInvalid(f"{path}: this is nested deeper than any key.")
        _refuse_twins(path, yaml.compose(data, Loader=yaml.SafeLoader))
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise SettingsInvalid(f"The file {path} cannot be read: {said}.") from None


def _refuse_twins(path: Path, node: Any) -> None:
    """A key that is there twice: the first would be lost without a word."""
    seen = set()
    for pair in node.value if node is not None and node.id == "mapping" else ():
        key, value = pair
        if key.value in seen and key.id == "scalar":
            line = key.start_mark.line + 1
            raise SettingsInvalid(f"{path}: '{key.value}' is there twice (line {line}).")
        if key.id == "scalar":
            seen.add(key.value)
        _refuse_twins(path, value)


def meant(contents: Sequence[tuple[str, object]]) -> Meant:
    """What files say together, each a name for people and its content; later ones win.

    Raises:
        errors.SettingsInvalid: a key is not known, or has a value that cannot be.
    """
    settings: dict[str, Any] = {}
    unheeded: list[str] = []
    for name, content in contents:
        for section, keys in _sections(name, content):
            if section == DECODE_PROFILES:
                unheeded += _unheeded_profiles(name, keys)
                continue
            for word, value in keys.items():
                where = f"{section}.{word}"
                key = _known(SECTIONS[section], word, name, section)
                if value is None:
                    continue
                if key.setting and key.read is not None:
                    settings[key.setting] = _read(key.read, value, name, where)
                elif value not in key.usual:
                    unheeded.append(where)
    return Meant(_together(settings), tuple(dict.fromkeys(unheeded)))


def _sections(name: str, content: object) -> list[tuple[str, Mapping[str, Any]]]:
    if content is None:
        return []
    if not isinstance(content, Mapping):
        raise SettingsInvalid(f"{name}: this is no list of sections such as 'server:'.")
    found = []
    for section, keys in content.items():
        _known({**SECTIONS, DECODE_PROFILES: None}, section, name)
        if keys is not None and not isinstance(keys, Mapping):
            raise SettingsInvalid(f"{name}: '{section}' holds keys with values.")
        found.append((section, keys or {}))
    return found


def _known(words: Mapping[str, Value], word: object, name: str, section: str = "") -> Value:
    if isinstance(word, str) and word in words:
        return words[word]
    where = f"{section}.{word}" if section else str(word)
    elsewhere = [f"{one}.{word}" for one, keys in SECTIONS.items() if section and word in keys]
    hint = suggestion(str(word), [*words])
    raise SettingsInvalid(
        f"{name}: there is no key '{where}'.",
        hint=f"Did you mean '{elsewhere[0]}'?" if elsewhere else hint,
    )


def _read(read: Read, value: object, name: str, where: str) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise SettingsInvalid(
            f"{name}: '{where}' is {value!r:.60}, and has to be {error}."
        ) from None


def _unheeded_profiles(name: str, profiles: Mapping[str, Any]) -> list[str]:
    unheeded = []
    for profile, options in profiles.items():
        where = f"{DECODE_PROFILES}.{profile}"
        if options is not None and not isinstance(options, Mapping):
            raise SettingsInvalid(f"{name}: '{where}' holds keys with values.")
        for option in options or {}:
            _known(DECODING, option, name, where)
        if profile not in PROFILES:
            unheeded.append(where)
            continue
        done = {**DECODING, **PROFILES[profile]}
        unheeded += [
            f"{where}.{option}"
            for option, value in (options or {}).items()
            if value is not None and value != done[option]
        ]
    return unheeded


def _together(settings: dict[str, Any]) -> dict[str, Any]:
    """What keys mean beside each other: a language counts where it is fixed, and a model is one of
    Whisper's, by its name or by its folder."""
    fixed = settings.pop("language_fix", False)
    if not fixed:
        settings.pop("language", None)
    model = settings.get("whisper_model")
    if model is not None:
        settings["live_engine"] = "whisper"
        if model not in whisper_checkpoints.NAMES and Path(model).parts[1:]:
            settings["model_path"] = settings.pop("whisper_model")
    return settings
