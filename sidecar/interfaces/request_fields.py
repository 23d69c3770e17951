"""Options of a request, one row each: what protocols, command line, clients and docs read. Pure.

The type and the default of a row are those of its field in `TranscribeOptions`.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from sidecar.interfaces.engine_interface import EngineSpec, TranscribeOptions
from sidecar.transcripts.transcript_formats import SUBTITLES

MAX_PROMPT_CHARACTERS = 4096
"""Characters of context and hotwords together; a page of names, 1 to 4 thousand tokens."""
MAX_SPEAKERS = 20
MAX_TRACKS = 99
MAX_CHANNELS = 8
"""Channels that are transcribed one by one: those of a recorder. Each is as much work."""
MAX_SKIP_S = 86_400
"""A day: no recording is longer."""
MAX_TOKENS = 65_536
"""Positions of the model in all (64 K)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestField:
    """Option of a request.

    ``text``: what it does. ``kind``: type of its value (`bool`, `int`, `float`, `str` or an
    enumeration). ``least``, ``most``: of a number.
    ``same_as``: the field that it is another name of. ``follows``: whether an engine can follow it;
    `None` if that is not the engine's work. ``noticed_with``: the fields that one notice names
    together. ``flag``, ``help``, ``shown``: of the command line, which has no flag for it without
    ``help``; ``shown`` as `typer.Option`. ``openai``: OpenAI's protocol has no field for it and
    takes this one. ``upstream``: another vibevoice-asr gets it, as the engine there follows it.
    ``estimate``: it changes what a recording takes.
    """

    name: str
    text: str
    kind: type
    default: Any
    least: float = 0
    most: float = 0
    examples: tuple[Any, ...] = ()
    same_as: str = ""
    follows: Callable[[EngineSpec], bool] | None = None
    noticed_with: tuple[str, ...] = ()
    flag: str = ""
    help: str = ""
    shown: Mapping[str, Any] = field(default_factory=dict)
    openai: bool = True
    upstream: bool = True
    estimate: bool = False


_TYPES = get_type_hints(TranscribeOptions)
_DEFAULTS = {one.name: one.default for one in fields(TranscribeOptions)}


def _row(name: str, text: str, **more: Any) -> RequestField:
    """Return the row of a field of `TranscribeOptions`.

    Raises:
        KeyError: there is no such field.
    """
    known = more.get("same_as", name)
    kinds = get_args(_TYPES[known]) or (_TYPES[known],)
    kind = next(one for one in kinds if one not in (NoneType, ...))
    return RequestField(name=name, text=text, kind=kind, default=_DEFAULTS[known], **more)


def _alias(name: str, same_as: str, **more: Any) -> RequestField:
    return _row(name, f"The same as '{same_as}'; send one of them.", same_as=same_as, **more)


_takes_prompt = operator.attrgetter("steerable")
_takes_hotwords = operator.attrgetter("takes_hotwords")
_takes_speaker_count = operator.attrgetter("counted")


def _takes_decoding(spec: EngineSpec) -> bool:
    return spec.steerable and not spec.prompt_only


_PROMPT: dict[str, Any] = {"noticed_with": ("prompt", "hotwords"), "estimate": True}
_NUMBER: dict[str, Any] = {"least": 1, "most": MAX_SPEAKERS, "shown": {"metavar": "N"}}
_COUNT = _NUMBER | {"examples": (2,), "follows": _takes_speaker_count}
_LIMIT = _COUNT | {"noticed_with": ("min_speakers", "max_speakers")}
_OF_AUDIO: dict[str, Any] = {"upstream": False}  # followed before an upstream gets the audio
_OF_PEOPLE: dict[str, Any] = {"upstream": False, "openai": False}  # theirs are enrolled here

# fmt: off
_ROWS = (
    _row("precision",
        "Preferred precision ('auto' is the loaded one). Another one is loaded, and stays until a "
        "request or POST /reload-model names another. An engine without it uses its own, with a "
        "warning.",
        help="Load the weights in this precision", estimate=True),
    _row("language", "Language tag such as 'en' or 'de-CH'; 'auto' detects it.",
        help="Expect this language, such as 'en'; or 'auto'.", shown={"metavar": "TAG"},
        examples=("auto", "en"), openai=False),
    _row("diarize", "Label the speakers; false costs less work.",
        help="Label the speakers (default), or not.", estimate=True),
    _row("diarization", "Effort of diarization.", help="Set the effort of diarization"),
    _row("recognise", "Identify enrolled speakers, if there are any.", **_OF_PEOPLE),
    _row("voiceprints",
        "Where nobody has agreed yet to enrolled speakers: keep the embeddings of this job's "
        "speakers in memory with it, so that one can be enrolled.", **_OF_PEOPLE),
    _row("hotwords",
        "Names and terms to expect, separated by commas or in free text. With 'prompt' "
        f"together at most {MAX_PROMPT_CHARACTERS} characters.",
        help="Expect these names and terms.", shown={"metavar": "WORDS"},
        examples=("Nagg, Nell, Beckett",), follows=_takes_hotwords, **_PROMPT),
    _row("prompt", "Topic of the recording, in its language.",
        help="Describe the recordings: topic, names, terms.", shown={"metavar": "TEXT"},
        examples=("A scene of Samuel Beckett's Endgame",), follows=_takes_prompt, openai=False,
        **_PROMPT),
    _alias("context", "prompt", openai=False),
    _row("num_speakers", "Number of speakers, if known: a hint.",
        flag="--speakers", help="Expect N speakers (a hint).", **_COUNT),
    _alias("speakers", "num_speakers", **_COUNT),
    _row("min_speakers", "Least number of speakers, instead of 'num_speakers'.",
        help="Expect at least N speakers (a hint).", **_LIMIT),
    _row("max_speakers", "Greatest number of speakers, instead of 'num_speakers'.",
        help="Expect at most N speakers (a hint).", **_LIMIT),
    _row("temperature", "Sampling temperature; 0 takes the likeliest words.",
        most=1, examples=(0,), follows=_takes_decoding, openai=False),
    _row("max_tokens", "Limit of the model's output. Default: by the length of the audio.",
        least=1, most=MAX_TOKENS, examples=(4096,), follows=_takes_decoding, estimate=True),
    _row("windows",
        "'parallel' transcribes windows of about five minutes, several at once, if the memory "
        "suffices. It is faster; speakers are linked across windows by their embeddings. 'single' "
        "takes as few windows as fit. Default: 'parallel' over 15 minutes on a GPU.",
        help="Windows of a long recording, several at once being faster on a big card",
        examples=("auto",), follows=_takes_decoding),
    _row("track",
        "Number of the audio track, for a film with several. Default: the first that can be "
        "decoded.",
        help="Transcribe audio track N of a film.", shown={"metavar": "N", "min": 1},
        least=1, most=MAX_TRACKS, examples=(2,), estimate=True, **_OF_AUDIO),
    _row("skip_seconds",
        "Seconds at the beginning that the engine gets as silence, and so transcribes nothing of. "
        "All times stay those of the whole recording.",
        help="Begin behind the first N seconds.", shown={"metavar": "N"},
        most=MAX_SKIP_S, examples=(90,), **_OF_AUDIO),
    _row("channels",
        "'separate' transcribes each channel for itself: for calls and interviews with a "
        "microphone for each person. Its speakers have the name of the channel, and words said at "
        f"the same time stay whole. At most {MAX_CHANNELS} channels. Each counts "
        "as a recording of its own, and 'num_speakers', 'min_speakers' and 'max_speakers' are "
        "those of each channel.",
        help="Mix the channels, or transcribe each with its own speakers, as of a call",
        estimate=True, **_OF_AUDIO),
    _row("channel_names",
        "Names of separate channels in their order, separated by commas. Default: 'Left' and "
        "'Right', or 'Channel 1' and so on.",
        help="Name separate channels, in their order.", shown={"metavar": "NAMES"},
        examples=("Agent, Caller",), **_OF_AUDIO),
    _row("words", "Return word timestamps, also from an engine for which they are more work.",
        help=f"Return word timestamps (default for {', '.join(SUBTITLES)}), or not.",
        openai=False),
)
# fmt: on
REQUEST_FIELDS: Mapping[str, RequestField] = {row.name: row for row in _ROWS}
"""All options by name, in the order of the documentation. 'openai=False' is also what that protocol
takes under its own name (`plugins/openai/request.py`)."""
SPEAKER_COUNT_FIELDS = "num_speakers", "speakers", "min_speakers", "max_speakers"


def followed_options(spec: EngineSpec) -> list[str]:
    """Return the options that have an effect with an engine."""
    rows = REQUEST_FIELDS.items()
    return [name for name, row in rows if row.follows is None or row.follows(spec)]
