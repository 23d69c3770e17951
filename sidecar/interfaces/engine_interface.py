"""Interfaces of ASR and TTS engines: spec, options, memory plan, precision, event generator.

An engine knows nothing of HTTP, queues or asyncio. It runs in a worker process
(`workers.worker_process`). docs/architecture.md says how to add one.

A TTS engine (`plugins/conversation/tts/`) turns text into audio, in a worker process of its own.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, Self

from sidecar.audio import Block
from sidecar.serialization import WireValues, to_plain
from sidecar.transcripts.transcript import ResumePoint, SpeakerCandidate, TranscriptionEvent

AUTO = "auto"
CancelCheck = Callable[[], bool]
"""Check between two steps; True means that the work must stop."""
PCM16_BYTES = 2
"""Bytes of a sample of synthesized audio: 16 bit, mono, little-endian."""
MAX_TTS_CHARACTERS = 2_000
"""Characters of one synthesis at most; a client with more text sends it sentence by sentence."""


class Precision(StrEnum):
    """Precision of an engine's weights; `AUTO` leaves it to the engine."""

    AUTO = AUTO
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class DiarizationEffort(StrEnum):
    """Effort of diarization. Cost and errors: docs/decisions/diarization-parameters.md."""

    BALANCED = "balanced"
    ACCURATE = "accurate"


class WindowingMode(StrEnum):
    """Handling of a recording that could be transcribed in several windows."""

    AUTO = AUTO
    """`PARALLEL` on a GPU for a recording of more than fifteen minutes, else `SINGLE`."""
    PARALLEL = "parallel"
    """Windows of about five minutes, several decoded in step: a long recording takes a fraction of
    the time."""
    SINGLE = "single"
    """As few windows as memory and model allow."""


class ChannelMode(StrEnum):
    """Handling of the channels of a recording."""

    MIX = "mix"
    SEPARATE = "separate"
    """Each is transcribed for itself: it has its own speaker, or speakers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Facts about an ASR or TTS engine that are known before it loads.

    ``languages`` is empty if it supports any. The first of ``precisions`` is its default;
    ``stands_for`` maps a precision to the one that replaces it on this machine. ``lacking`` maps a
    precision that this machine cannot run with this checkpoint to the reason. ``planned``:
    `gpu_memory.memory_plan` plans its device memory. ``factory``: its class, as `module:Class`.
    """

    name: str
    factory: str
    title: str
    precisions: tuple[Precision, ...] = (Precision.FP32,)
    languages: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    planned: bool = False
    stands_for: Mapping[Precision, Precision] = field(default_factory=dict)
    lacking: Mapping[Precision, str] = field(default_factory=dict)

    def resolve_precision(self, precision: Precision) -> Precision:
        """Return the precision that is used if ``precision`` is requested; the default if the
        engine lacks it."""
        precision = self.stands_for.get(precision, precision)
        return precision if precision in self.precisions else self.precisions[0]

    def substitution(self, precision: Precision) -> str:
        """Return a sentence that names both if ``precision`` is a precision that it lacks, else
        ''."""
        used = self.resolve_precision(precision)
        if precision in (AUTO, used):
            return ""
        there = ", ".join(self.precisions)
        return f"The engine '{self.name}' has no {precision}; {used} is used (it has: {there})."

    def replacement(self, precision: Precision) -> str:
        """Return what runs instead of ``precision`` on this machine, and why; '' if it runs."""
        used = self.resolve_precision(precision)
        if precision in (AUTO, used):
            return ""
        reason = f": {self.lacking[precision]}" if precision in self.lacking else ""
        return f"{precision} runs as {used} here{reason}"

    def without(self, precision: Precision, reason: str) -> Self:
        """Return the spec of a machine that cannot run a precision, for a reason."""
        rest = tuple(one for one in self.precisions if one is not precision)
        return replace(self, precisions=rest, lacking={**self.lacking, precision: reason})

    def speaks(self, language: str) -> bool:
        """Return whether the engine supports ``language`` (a tag; only its first part counts)."""
        any_language = language == AUTO or not self.languages
        return any_language or language.split("-")[0].lower() in self.languages


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec(ModelSpec):
    """Capabilities of an ASR engine.

    ``steerable``: it takes a prompt and, unless ``prompt_only``, a temperature, a limit of tokens
    and windows. ``hotwords``: it takes these without a prompt. ``counted``: it takes the number of
    speakers. ``words``: word times are no more work. ``together``: the maximum of recordings at
    once, of each server if they are ``remote``: as many threads call `transcribe`. ``sessions``:
    the maximum of live sessions in one process; an engine with any is a
    `live.runtime.live_scheduler.LiveEngine`. ``translates``: into English. ``resumes``: version of
    its resume points, changed whenever their meaning changes; an engine that has one is a
    `ResumableEngine`. ``by_voices``: its speaker labels come from `diarization/` only.
    """

    sample_rate: int
    diarizes: bool
    steerable: bool = False
    prompt_only: bool = False
    hotwords: bool = False
    counted: bool = False
    words: bool = False
    together: int = 1
    remote: bool = False
    translates: bool = False
    resumes: str = ""
    sessions: int = 0
    by_voices: bool = False

    @property
    def takes_hotwords(self) -> bool:
        """Return whether the engine takes hotwords, by themselves or in a prompt."""
        return self.hotwords or self.steerable


def join_prompt(prompt: str, hotwords: Sequence[str]) -> str:
    """Return a context and hotwords as one line; '' without either."""
    joined = ""
    for part in filter(None, (*prompt.splitlines(), ", ".join(hotwords))):
        between = " " if joined and unicodedata.category(joined[-1]).startswith("P") else ", "
        joined = joined + between + part if joined else part
    return joined


def prompt_lines(prompt: str, hotwords: Sequence[str]) -> str:
    """Return a context and hotwords as VibeVoice-ASR is trained with them: one term a line."""
    return "\n".join(filter(None, (prompt, *hotwords)))


def abbreviate_names(names: Sequence[str], most: int = 10) -> str:
    """Return the first ``most`` names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Use of a device's memory for one recording; `gpu_memory.memory_plan` decides it.

    ``encoder_chunk_s``: seconds of audio in one pass of the encoders. ``prefill_tile``: tokens in
    one pass of an MLP during the prefill. ``cache_tokens``: positions of the KV cache to begin
    with; it grows by ``cache_step``. ``evict_encoders``: they go to the host's memory once the
    audio is encoded. ``host_token_table``: the token embeddings stay in the host's memory.
    ``window_s``: the longest window of a recording (model card: an hour). ``together``: number of
    windows that are decoded in step. ``places``: of `memory_plan.BATCHED_WINDOW_S` seconds, for the
    windows of all recordings that run beside each other; 0: it runs alone. A window of this one
    takes ``weight`` of them.
    """

    encoder_chunk_s: float = 8.0
    prefill_tile: int = 2048
    cache_tokens: int = 0
    cache_step: int = 4096
    evict_encoders: bool = False
    host_token_table: bool = False
    window_s: float = 3600.0
    together: int = 1
    places: int = 0
    weight: int = 1


_LATER_OPTIONS = (
    "hotwords",
    "token_hotwords",
    "min_speakers",
    "max_speakers",
    "keeps_diarization",
    "skip_seconds",
)


@dataclass(frozen=True, slots=True)
class TranscribeOptions(WireValues):
    """Options of one request; an engine ignores those that it does not support.

    ``prompt``: context, in the speaker's language. ``hotwords``: names and terms that may occur, as
    they are written; ``token_hotwords``: those of the client's token, for
    `service.default_hotwords`. ``num_speakers``, or ``min_speakers`` and ``max_speakers``: as far
    as the client knows them. ``temperature``: 0 is greedy. ``max_tokens``: limit of the text; None:
    by the length of the audio. ``translate``: into English (`EngineSpec.translates`). ``words``:
    word times, even if they take extra work. ``memory_fallback``: the plan for a second try if
    memory runs out. ``memory_alone``: the plan of windows that begin while no other recording runs
    or waits, if more of them are decoded at once then. ``track``: number of the audio track, from
    1; None: the first that can be decoded. ``channels``: `workers.channel_transcription` follows
    it, and no engine. ``channel_names``: of the speakers of separate channels; '' and those that
    are missing have their usual names. ``recognise``: whether enrolled speakers may be identified;
    ``known_voices``: their embeddings. ``voiceprints``: the transcript has the speakers'
    embeddings; while a job waits, that they are kept where it was submitted. ``keeps_diarization``:
    the engine reports what a later diarization with another number of speakers needs
    (`transcript.KEPT_DIARIZATION`). ``unknown_fields``: a sentence for each unknown field of the
    request, only for its response.
    """

    precision: Precision = Precision.AUTO
    language: str = AUTO
    diarize: bool = True
    diarization: DiarizationEffort = DiarizationEffort.BALANCED
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    num_speakers: int | None = None
    temperature: float = 0.0
    max_tokens: int | None = None
    translate: bool = False
    windows: WindowingMode = WindowingMode.AUTO
    words: bool = False
    track: int | None = None
    channels: ChannelMode = ChannelMode.MIX
    channel_names: tuple[str, ...] = ()
    memory: MemoryPlan = MemoryPlan()
    memory_fallback: MemoryPlan | None = None
    memory_alone: MemoryPlan | None = None
    recognise: bool = True
    known_voices: tuple[SpeakerCandidate, ...] = ()
    voiceprints: bool = False
    unknown_fields: tuple[str, ...] = ()
    min_speakers: int | None = None
    max_speakers: int | None = None
    keeps_diarization: bool = False
    skip_seconds: float = 0.0
    token_hotwords: tuple[str, ...] = ()

    @property
    def prompt_with_hotwords(self) -> str:
        """Return the context, and then the hotwords, for a model that takes both in one text."""
        return join_prompt(self.prompt, self.hotwords)

    @property
    def prompt_lines(self) -> str:
        """Return the same, one term a line."""
        return prompt_lines(self.prompt, self.hotwords)

    @property
    def speaker_counts(self) -> dict[str, int]:
        """Return what the client knows of the number of speakers, by field."""
        names = "num_speakers", "min_speakers", "max_speakers"
        found = ((name, getattr(self, name)) for name in names)
        return {name: count for name, count in found if count is not None}

    @property
    def identifies_speakers(self) -> bool:
        """Return whether the client requests speaker identification, and not only speaker
        labels."""
        return self.diarize and (bool(self.known_voices) or self.voiceprints)

    def to_wire(self) -> dict[str, Any]:
        """Return the options as plain values, without those that only the response needs, and
        without those that were not sent and that a node of the release before does not know."""
        values: dict[str, Any] = to_plain(self)
        del values["unknown_fields"]
        for name in _LATER_OPTIONS:
            if not values[name]:
                del values[name]
        if self.channels is ChannelMode.MIX:
            del values["channels"], values["channel_names"]
        return values


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Upstream servers of an engine, and request options for them.

    ``urls`` have no path of an API and no credentials; ``keys`` is one for each, '' for none.
    ``timeout``: seconds for a second of audio. ``piece_s``: the longest chunk in seconds; 0: by the
    number of upstreams and their kind. ``ca``: a file of certificates. ``answers``: the file with
    what they answered within a day, '' for none. `repr` omits the keys.
    """

    urls: tuple[str, ...]
    keys: tuple[str, ...] = field(default=(), repr=False)
    dialect: str = AUTO
    model: str | None = None
    ca: str | None = None
    timeout: float = 3.0
    piece_s: float = 0.0
    answers: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginEngine:
    """ASR engine that a plugin brings; `auto` never chooses it.

    ``description``: what the setting `engine` says of it. ``live``: what `live_engine` says, which
    can name only those with such a text. ``servers``: reads in the settings the
    servers to which it sends recordings; `None` if it sends them to none. ``model``: finds the
    checkpoint (`checkpoints.checkpoint.ModelCheckpoint`) that the settings name, and returns it
    with the spec that it has with this one; raises `errors.BadCheckpoint`. `None` if it needs none.
    ``footprints``: the memory (`gpu_memory.engine_footprint.EngineFootprint`) of a checkpoint in
    each precision of the spec; `None` if only the size of its files is known.
    """

    spec: EngineSpec
    description: str
    servers: Callable[[Any], UpstreamOptions] | None = None
    model: Callable[[Any], tuple[EngineSpec, Any]] | None = None
    footprints: Callable[[EngineSpec, Any], Mapping[Precision, Any]] | None = None
    live: str = ""


@dataclass(frozen=True, slots=True)
class LoadOptions(WireValues):
    """Options of the load of an engine; an engine without a checkpoint or a choice of device
    ignores those.

    ``checkpoint``: the folder of the weights. ``device``: 'auto', 'cuda' or 'cpu'.
    ``evict_encoders`` and ``host_token_table``: these parts stay out of the device's memory during
    the load; what a recording needs of them is moved there by its `MemoryPlan`. ``upstream``: for
    an engine that uses upstreams. ``live``: it serves many live sessions at once, and no
    recordings. ``speaks``: it is a TTS engine.
    """

    precision: Precision = Precision.AUTO
    checkpoint: str | None = None
    device: str = AUTO
    evict_encoders: bool = False
    host_token_table: bool = False
    upstream: UpstreamOptions | None = None
    live: bool = False
    speaks: bool = False


class AudioStream(Protocol):
    """Decoded audio on its way to an engine."""

    @property
    def total_s(self) -> float | None:
        """Return the total seconds; None if not known yet."""

    def __iter__(self) -> Iterator[Block]:
        """Yield blocks of at most a few seconds, at the engine's rate."""


class InterruptibleAudio:
    """Audio that can be interrupted between two blocks, as an hour takes long to read."""

    def __init__(self, audio: AudioStream, check: Callable[[], None]) -> None:
        self._audio = audio
        self._check = check

    @property
    def total_s(self) -> float | None:
        """Return the total seconds of the audio; None if not known yet."""
        return self._audio.total_s

    def __iter__(self) -> Iterator[Block]:
        for block in self._audio:
            self._check()  # raises the error that ends the reading
            yield block


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """Recording to transcribe: its audio, its options, and its cancellation."""

    audio: AudioStream
    options: TranscribeOptions
    cancelled: CancelCheck


class TranscriptionEngine(Protocol):
    """Engine with blocking calls, testable without a server. Its resources end with its process."""

    sample_rate: int
    """Of the audio that it takes, in Hz; known once it is loaded, whatever its spec has."""

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Load the weights into memory; yield the progress from 0 to 1.

        Heavy imports happen only here.
        """

    def transcribe(self, request: TranscriptionRequest) -> Iterator[TranscriptionEvent]:
        """Yield events in order, `Finished` last; end early without it once ``cancelled()``."""


class ResumableEngine(TranscriptionEngine, Protocol):
    """Engine that yields resume points and continues from them."""

    def transcribe_from(
        self, resume_points: Sequence[ResumePoint], request: TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """Transcribe as `TranscriptionEngine.transcribe`, with a `ResumePoint` about every half
        minute of audio, or after each window of the model.

        ``resume_points``: all those of this recording so far, empty at its beginning; the audio is
        the whole recording. Segment numbers continue theirs; `Finished` has all.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsSpec(ModelSpec):
    """Capabilities of a TTS engine.

    ``marks``: it reports when each word begins. ``lists_voices``: its voices are known here;
    otherwise any name is passed on to the server.
    """

    marks: bool = False
    lists_voices: bool = True


@dataclass(frozen=True, slots=True)
class WordMark:
    """Start of the word at ``character`` of the text: seconds since the beginning of that text's
    audio."""

    character: int
    start: float


@dataclass(frozen=True, slots=True)
class SynthesizedAudio:
    """Chunk of synthesized audio: ``pcm`` as 16-bit mono little-endian samples, ``rate`` of them a
    second; ``marks`` of the words that begin in it, if the engine reports them."""

    pcm: bytes
    rate: int
    marks: tuple[WordMark, ...] = ()

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return len(self.pcm) / PCM16_BYTES / self.rate


@dataclass(frozen=True, slots=True)
class SynthesisOptions(WireValues):
    """Options of speech synthesis.

    ``voice``: a voice of the engine; '': its default. ``speed``: 1 is the voice's own.
    ``language``: of the text; 'auto': that of the voice. ``rate``: requested samples per second; 0:
    the rate of the voice.
    """

    voice: str = ""
    language: str = AUTO
    speed: float = 1.0
    rate: int = 0


class TtsEngine(Protocol):
    """Engine with blocking calls, testable without a server. Its resources end with its process."""

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Load the engine, as `TranscriptionEngine.load`."""

    def voices(self) -> Sequence[str]:
        """Return its voices, the default first; known once it is loaded."""

    def say(
        self, text: str, options: SynthesisOptions, cancelled: CancelCheck
    ) -> Iterator[SynthesizedAudio]:
        """Yield the audio of ``text``, in order; end early once ``cancelled()``.

        Raises:
            errors.VoiceUnknown: there is no such voice.
        """
