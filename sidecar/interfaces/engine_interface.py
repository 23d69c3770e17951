"""Interfaces of ASR and TTS engines: spec, options, memory plan, precision, event generator.

An engine knows nothing of HTTP, queues or asyncio. It lives in a worker process
(`workers.worker_process`); a new one is a file in `engines/` and a line in its tuple.

As `interfaces.engine_interface`, the other way round: words in, sound out. It lives in a worker
process of its own; a new one is a file in `tts/` and a line in its tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from sidecar import errors
from sidecar.audio import Block
from sidecar.transcripts.speaker_embeddings import SpeakerCandidate, WindowEmbeddingsRequest
from sidecar.transcripts.transcript import Checkpoint, TranscriptionEvent

AUTO = "auto"


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
    """As few as memory and model allow: the best transcript."""
    PARALLEL = "parallel"
    """Several at once, decoded in step: a long recording is done in a fraction of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Facts about an ASR or TTS engine that are known before it loads.

    ``languages`` is empty if it takes any. The first of ``precisions`` is its default;
    ``stands_for`` names the precision that is used in another's place on this machine. ``planned``:
    `gpu_memory.memory_plan` plans its device memory.
    """

    name: str
    title: str
    precisions: tuple[Precision, ...] = (Precision.FP32,)
    languages: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    planned: bool = False
    stands_for: Mapping[Precision, Precision] = field(default_factory=dict)

    def resolve_precision(self, wanted: Precision) -> Precision:
        """The precision that is used when ``wanted`` is asked for; its own where it lacks that."""
        wanted = self.stands_for.get(wanted, wanted)
        return wanted if wanted in self.precisions else self.precisions[0]

    def substitution(self, wanted: Precision) -> str:
        """Return a sentence that names both if ``wanted`` is a precision that it lacks, else ''."""
        used = self.resolve_precision(wanted)
        if wanted in (AUTO, used):
            return ""
        there = ", ".join(self.precisions)
        return f"The engine '{self.name}' has no {wanted}; {used} is used (it has: {there})."

    def speaks(self, language: str) -> bool:
        """Return whether this engine knows ``language`` (a tag; only its first part counts)."""
        any_language = language == AUTO or not self.languages
        return any_language or language.split("-")[0].lower() in self.languages


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec(ModelSpec):
    """Capabilities of an ASR engine.

    ``steerable``: it takes a prompt, a number of speakers, a temperature and a limit of tokens.
    ``counted``: of these, the number of speakers. ``together``: the most recordings in one batch;
    an engine with more than one is a `BatchEngine`. ``sessions``: the most live sessions in one
    process; an engine with any is a `interfaces.live_engine.LiveEngine`. ``remote``: other machines
    do the work, so that batches cost this one nothing. ``translates``: into English. ``resumes``:
    the form of its checkpoints, another one whenever their meaning changes; an engine that has one
    is a `ResumableEngine`. ``by_voices``: it tells speakers apart by `diarization/` and nothing
    else.
    """

    sample_rate: int
    diarizes: bool
    steerable: bool = False
    counted: bool = False
    together: int = 1
    remote: bool = False
    translates: bool = False
    resumes: str = ""
    sessions: int = 0
    by_voices: bool = False


def abbreviate_names(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Use of a device's memory for one recording; `gpu_memory.memory_plan` decides it.

    ``encoder_chunk_s``: seconds of audio in one pass of the encoders. ``prefill_tile``: tokens in
    one pass of an MLP during the prefill. ``cache_tokens``: positions of the KV cache to begin
    with; it grows by ``cache_step``. ``evict_encoders``: they go to the host's memory once the
    audio is encoded. ``host_token_table``: the token embeddings stay in the host's memory.
    ``window_s``: the longest piece of a recording that is heard at once (model card: an hour).
    ``together``: so many of them are decoded in step.
    """

    encoder_chunk_s: float = 8.0
    prefill_tile: int = 2048
    cache_tokens: int = 0
    cache_step: int = 4096
    evict_encoders: bool = False
    host_token_table: bool = False
    window_s: float = 3600.0
    together: int = 1


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """Options of one request; an engine ignores those that it does not have.

    ``prompt``: names, terms, context, in the speaker's language. ``num_speakers``: if the client
    knows it. ``temperature``: 0 is greedy. ``max_tokens``: of text, None leaves it to the length of
    the audio. ``translate``: into English (`EngineSpec.translates`). ``words``: with their times,
    also if these cost something. ``memory_fallback``: the plan for a second try if memory runs out.
    ``recognise``: whether enrolled speakers may be recognized; ``known_voices``: their embeddings.
    ``voiceprints``: the transcript has the speakers' embeddings; while a job waits, that they are
    kept where it was submitted. ``local_voices``: the recording is a chunk, and the front wants
    these window embeddings of it; the worker makes them, and no engine has to know.
    ``unknown_fields``: a sentence for each unknown field of the request, for its answer alone.
    """

    precision: Precision = Precision.AUTO
    language: str = AUTO
    diarize: bool = True
    diarization: DiarizationEffort = DiarizationEffort.BALANCED
    prompt: str = ""
    num_speakers: int | None = None
    temperature: float = 0.0
    max_tokens: int | None = None
    translate: bool = False
    windows: WindowingMode = WindowingMode.AUTO
    words: bool = False
    memory: MemoryPlan = MemoryPlan()
    memory_fallback: MemoryPlan | None = None
    recognise: bool = True
    known_voices: tuple[SpeakerCandidate, ...] = ()
    voiceprints: bool = False
    local_voices: WindowEmbeddingsRequest | None = None
    unknown_fields: tuple[str, ...] = ()

    @property
    def identifies_speakers(self) -> bool:
        """Return whether the client wants to know who the speakers are, and not only that they
        differ."""
        return self.diarize and (bool(self.known_voices) or self.voiceprints)

    def to_wire(self) -> dict[str, Any]:
        """The options as plain values, without what only the answer has a use for."""
        values = asdict(self)
        del values["unknown_fields"]
        return values

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> TranscribeOptions:
        """The options that `to_wire` wrote."""
        fallback = values["memory_fallback"]
        local = values.get("local_voices")
        return cls(
            **{
                **values,
                "precision": Precision(values["precision"]),
                "diarization": DiarizationEffort(values["diarization"]),
                "windows": WindowingMode(values["windows"]),
                "memory": MemoryPlan(**values["memory"]),
                "memory_fallback": fallback and MemoryPlan(**fallback),
                "known_voices": tuple(
                    map(SpeakerCandidate.from_wire, values.get("known_voices", ()))
                ),
                "local_voices": local and WindowEmbeddingsRequest(**local),
            }
        )


@dataclass(frozen=True, slots=True)
class UpstreamOptions:
    """Upstream servers of an engine, and request options for them.

    ``urls`` have no path of an API and no credentials; ``keys`` is one for each, '' for none.
    ``timeout``: seconds for a second of audio. ``piece_s``: the longest piece, 0 leaves it to
    how many there are, and to their kind. ``ca``: a file of certificates. Nothing prints the keys.
    """

    urls: tuple[str, ...]
    keys: tuple[str, ...] = field(default=(), repr=False)
    dialect: str = AUTO
    model: str | None = None
    ca: str | None = None
    timeout: float = 3.0
    piece_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of the load of an engine; one without a checkpoint or a choice of device leaves those
    out.

    ``checkpoint``: the folder of the weights. ``device``: 'auto', 'cuda' or 'cpu'.
    ``evict_encoders`` and ``host_token_table``: these parts never pass through the device's memory
    while it loads; what a recording needs of them comes there by its `MemoryPlan`. ``upstream``:
    for the engine that has others hear. ``live``: it will hear sessions, many at once, and no
    files. ``speaks``: it is one of `tts`. ``steps``: of diffusion, 0 takes as many as the machine
    has time for.
    """

    precision: Precision = Precision.AUTO
    checkpoint: str | None = None
    device: str = AUTO
    evict_encoders: bool = False
    host_token_table: bool = False
    upstream: UpstreamOptions | None = None
    live: bool = False
    speaks: bool = False
    steps: int = 0

    def to_wire(self) -> dict[str, Any]:
        """The options as plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> LoadOptions:
        """The options that `to_wire` wrote."""
        other = values["upstream"]
        if other is not None:
            lists = {name: tuple(other[name]) for name in ("urls", "keys")}
            other = UpstreamOptions(**{**other, **lists})
        return cls(**{**values, "precision": Precision(values["precision"]), "upstream": other})


CancelCheck = Callable[[], bool]
"""Asked between steps; True means stop."""


class AudioStream(Protocol):
    """Decoded audio on its way to an engine."""

    @property
    def total_s(self) -> float | None:
        """Seconds in all, None while nobody knows."""

    def __iter__(self) -> Iterator[Block]:
        """Blocks of at most a few seconds, at the engine's rate."""


class InterruptibleAudio:
    """Audio whose reading can be stopped between two blocks: an hour takes its time."""

    def __init__(self, audio: AudioStream, check: Callable[[], None]) -> None:
        self._audio = audio
        self._check = check

    @property
    def total_s(self) -> float | None:
        """As the audio itself."""
        return self._audio.total_s

    def __iter__(self) -> Iterator[Block]:
        for block in self._audio:
            self._check()  # raises what ends the reading
            yield block


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """Recording to transcribe: its audio, its options, and its cancellation."""

    audio: AudioStream
    options: TranscribeOptions
    cancelled: CancelCheck


class TranscriptionEngine(Protocol):
    """Blocking, plain, testable without a server. What it took goes with its process."""

    def load(self, options: LoadOptions) -> Iterator[float]:
        """Bring the weights into memory, and tell how much of them is there, from 0 to 1.

        Heavy imports happen here and nowhere else.
        """

    def transcribe(self, request: TranscriptionRequest) -> Iterator[TranscriptionEvent]:
        """Events in order, `Finished` last; ends early without it once ``cancelled()``."""


@runtime_checkable
class LoadedRateEngine(TranscriptionEngine, Protocol):
    """Engine that knows its sample rate only once it is loaded, whatever its spec says."""

    sample_rate: int


class ResumableEngine(TranscriptionEngine, Protocol):
    """An engine that says what is settled, and goes on from there."""

    def transcribe_from(
        self, settled: Sequence[Checkpoint], request: TranscriptionRequest
    ) -> Iterator[TranscriptionEvent]:
        """As `TranscriptionEngine.transcribe`, with a `Checkpoint` every half minute of audio or
        so.

        ``settled``: all those of this recording so far, none at its beginning; the audio is the
        whole of it. Segments are numbered on from those that are settled; `Finished` has all.
        """


class BatchEngine(TranscriptionEngine, Protocol):
    """Engine that can transcribe several recordings in step."""

    def transcribe_together(
        self, requests: Sequence[TranscriptionRequest]
    ) -> Iterator[tuple[int, TranscriptionEvent | errors.SidecarError]]:
        """The events of each request with its number, as `TranscriptionEngine.transcribe` gives
        them.

        What goes wrong with one of them is its last event.
        """


PCM16_BYTES = 2
"""Of a sample of sound as it goes to listeners: 16 bit, mono, little-endian."""
MAX_TTS_CHARACTERS = 2_000
"""Characters that are said at once at most; who has more says it a sentence at a time."""
MAX_TTS_STEPS = 20
"""From noise to a frame of sound, of an engine that goes that way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TtsSpec(ModelSpec):
    """Capabilities of a TTS engine.

    ``streams``: audio comes while it is made, and can be stopped in between; otherwise a phrase is
    one piece of work. ``marks``: it says when each word begins. ``lists_voices``: its voices are
    known here; else any name is passed on to the server.
    """

    streams: bool = False
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
    """Some of what is said: ``pcm`` as 16-bit mono little-endian samples, ``rate`` of them a
    second; ``marks`` of the words that begin in it, where the engine knows them."""

    pcm: bytes
    rate: int
    marks: tuple[WordMark, ...] = ()

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return len(self.pcm) / PCM16_BYTES / self.rate


@dataclass(frozen=True, slots=True)
class SynthesisOptions:
    """Options of speech synthesis.

    ``voice``: one of those that the engine has, '' for its own choice. ``speed``: 1 is the voice's
    own. ``language``: of the text; 'auto' leaves it to the voice. ``rate``: samples a second that
    are wanted, 0 takes what the voice has.
    """

    voice: str = ""
    language: str = AUTO
    speed: float = 1.0
    rate: int = 0

    def to_wire(self) -> dict[str, Any]:
        """The options as plain values."""
        return asdict(self)

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> SynthesisOptions:
        """The options that `to_wire` wrote."""
        return cls(**values)


class TtsEngine(Protocol):
    """Blocking, plain, testable without a server. What it took goes with its process."""

    def load(self, options: LoadOptions) -> Iterator[float]:
        """As `interfaces.engine_interface.Engine.load`."""

    def voices(self) -> Sequence[str]:
        """Return its voices, the default first; known once it is loaded."""

    def say(
        self, text: str, options: SynthesisOptions, cancelled: CancelCheck
    ) -> Iterator[SynthesizedAudio]:
        """The sound of ``text``, in order; ends early once ``cancelled()``.

        Raises:
            errors.VoiceUnknown: there is no such voice.
        """
