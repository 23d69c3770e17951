"""Memory and time of VibeVoice-ASR-Streaming on a card: how many sessions it serves at once. Pure.

Each session has a cache of its own; weights and workspace are those of all. Times follow the bytes
that passes of the decoder read. They are estimates, close to figures that others measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from sidecar.gpu_memory.memory_footprint import (
    CACHE_ROUND,
    FRAGMENTATION,
    TOKENS_PER_SECOND,
    VIBEVOICE_7B_SHAPE,
    ModelFootprint,
    RecordingWork,
    reserve_bytes,
)
from sidecar.gpu_memory.memory_plan import (
    EFFICIENCY,
    EFFICIENCY_UNQUANTIZED,
    LIKELY_TOKENS_PER_SECOND,
    DeviceRoom,
    JobForecast,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision

STREAMING_SHAPES = {
    "vibevoice-streaming": VIBEVOICE_7B_SHAPE,
    "vibevoice-streaming-1.5b": replace(
        VIBEVOICE_7B_SHAPE, hidden=1536, heads=12, kv_heads=2, mlp=8960, vocab=151936, tied=True
    ),
}
"""Dimensions of the released models, by their names for `pull`."""
FRAMES_PER_S = 7.5
CHUNK_FRAMES, LOOKAHEAD_FRAMES = 22, 4
"""Frames of a window of the released models: from its begin to that of the next, and after that."""
SESSION_TOKENS = 16_384
"""Positions of a session's cache, after which it begins again with the last chunks: about
seventeen minutes of speech."""
WINDOWS_AT_ONCE = 8
"""Sessions that share passes of the decoder; others wait for the next ones."""
REMEMBERED_CHUNKS = 20
"""Chunks that a fresh cache begins with, about a minute: the present speakers and topic."""
PASS_S = 0.005
"""Seconds of a pass beside the reading of weights and caches. With it the predicted time of a usual
recording on an RTX 3090 is within a fifth of what public ports measured: 0.18 of its length for the
7B, 0.087 for the 1.5B."""
PERIOD_SHARE = 0.75
"""Share of a chunk's period that the passes of all sessions may take: the rest is for chance."""
MANY_SESSIONS = 2
"""Times the sessions of a wider precision that int4 has to hold to be the default."""
_DECODING = MemoryPlan(evict_encoders=True, host_token_table=True)


@dataclass(frozen=True, slots=True)
class StreamingFootprint(ModelFootprint):
    """Bytes and seconds of a streaming model of this ``shape`` at a ``precision``, of which the
    checkpoint has these frames of a window."""

    chunk_frames: int = CHUNK_FRAMES
    lookahead_frames: int = LOOKAHEAD_FRAMES

    @property
    def window_frames(self) -> int:
        """Return the frames of a window."""
        return self.chunk_frames + self.lookahead_frames

    @property
    def period_s(self) -> float:
        """Return the seconds from one window to the next."""
        return self.chunk_frames / FRAMES_PER_S

    @property
    def chunk_tokens(self) -> int:
        """Return the tokens of a chunk of dense speech. Sessions that share passes go on until the
        last has ended."""
        return ceil(TOKENS_PER_SECOND * self.period_s)

    @property
    def loaded_bytes(self) -> int:
        """Return the bytes of a process without sessions: weights, and the workspace of a pass."""
        encoded_s, positions = self.window_frames / FRAMES_PER_S, self.window_frames + 2
        loaded = MemoryPlan(
            encoder_chunk_s=WINDOWS_AT_ONCE * encoded_s, cache_tokens=SESSION_TOKENS
        )
        work = RecordingWork(
            loaded.encoder_chunk_s, positions, SESSION_TOKENS - positions - CACHE_ROUND
        )
        workspace = max(phase.activations for phase in self.phases(loaded, work))
        tensors = self.weights_bytes(loaded) + workspace
        return tensors + reserve_bytes(tensors)

    @property
    def session_bytes(self) -> int:
        """Return the bytes of a session: its cache, and the frames that it remembers."""
        remembered = REMEMBERED_CHUNKS * self.window_frames * self.shape.hidden * self.value_bytes
        return round((1 + FRAGMENTATION) * (self.cache_bytes(SESSION_TOKENS) + remembered))

    @property
    def needed_bytes(self) -> int:
        """Return the bytes of a process with one session, or with a recording."""
        return self.loaded_bytes + self.session_bytes

    def chunk_s(self, sessions: int, bandwidth: float, tokens: int | None = None) -> float:
        """Return the seconds in which each of ``sessions`` sessions gets the text of a chunk.

        Sessions that share passes are a prefill of each, then a pass for each of ``tokens`` tokens
        (by default `chunk_tokens`), with caches that are half full. ``bandwidth``: in bytes per
        second.
        """
        tokens = self.chunk_tokens if tokens is None else tokens
        batches = ceil(sessions / WINDOWS_AT_ONCE)
        passes = sessions + batches * tokens
        weights = passes * self.weights_bytes(_DECODING)
        encoders = batches * self.shape.encoder_parameters * self.value_bytes
        caches = sessions * tokens * self.cache_bytes(SESSION_TOKENS // 2)
        reached = bandwidth * EFFICIENCY.get(self.precision, EFFICIENCY_UNQUANTIZED)
        return passes * PASS_S + (weights + encoders + caches) / reached

    def sessions(self, room: DeviceRoom, most: int = 100) -> int:
        """Return how many sessions fit by memory and, if the bandwidth is known, by time."""
        by_memory = max(0, room.available_bytes - self.loaded_bytes) // self.session_bytes
        fitting = min(most, by_memory)
        if room.bandwidth is not None:
            most_s = PERIOD_SHARE * self.period_s
            while fitting > 1 and self.chunk_s(fitting, room.bandwidth) > most_s:
                fitting -= 1
        return fitting

    def forecast(self, audio_s: float | None, longest_s: float, room: DeviceRoom) -> JobForecast:
        """Return the forecast of a recording, with how many live sessions fit."""
        forecast = JobForecast.of_any_length(
            self.precision, self.needed_bytes, room.available_bytes, audio_s, longest_s
        )
        seconds = None
        if audio_s is not None and room.bandwidth is not None:
            tokens = ceil(LIKELY_TOKENS_PER_SECOND * self.period_s)
            seconds = audio_s / self.period_s * self.chunk_s(1, room.bandwidth, tokens)
        if not forecast.fits:
            return replace(forecast, seconds=seconds)
        if seconds is not None:
            forecast = forecast.with_seconds(seconds)
        sessions = self.sessions(room)
        return forecast.with_note(f"at most {sessions} live session{'s' * (sessions > 1)} at once")


def default_precision(sessions: Mapping[Precision, int]) -> tuple[Precision, str] | None:
    """Return the precision that is used if none is named, and why it is not the widest that fits,
    or ''; None if none fits. ``sessions``: how many fit in each, the best precision first."""
    wide = next((one for one, count in sessions.items() if count), None)
    if wide is None:
        return None
    most, least = sessions.get(Precision.INT4, 0), sessions[wide]
    if wide is Precision.INT4 or most < MANY_SESSIONS * least:
        return wide, ""
    return Precision.INT4, f"int4 by default: {most} live sessions, {least} in {wide}"
