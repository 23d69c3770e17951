"""VibeVoice-ASR-Streaming without its weights: memory, sessions a card, cost of a pass.

Part of ``python -m bench.live --engine vibevoice-streaming --random-weights``. Memory: the true
configurations on fake tensors, a pass of eight sessions beside what is planned for them. Sessions:
the planner's, for each card. Cost of a pass: one layer of the true width on the CPU, one thread,
CPU seconds; a whole model has 28.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from bench.serving import table
from sidecar.engines.vibevoice.vibevoice_decoder import VibeVoiceDecoder
from sidecar.engines.vibevoice.vibevoice_generation import PromptContinuation
from sidecar.gpu_memory import cards
from sidecar.gpu_memory.memory_footprint import reserve_bytes
from sidecar.gpu_memory.memory_plan import GB, PREFERRED_PRECISIONS, DeviceRoom
from sidecar.gpu_memory.streaming_memory import (
    STREAMING_SHAPES,
    WINDOWS_AT_ONCE,
    StreamingFootprint,
)
from sidecar.interfaces.engine_interface import MemoryPlan, Precision
from tests.support import memory_simulation

ROUNDS = 3
NAMES = ("RTX 4060", "RTX 3060", "RTX 4080", "RTX 3090", "RTX 4090", "RTX 5090", "A6000", "H100")


def report() -> None:
    """Print the tables."""
    footprints = [
        (name, StreamingFootprint(shape, precision))
        for name, shape in STREAMING_SHAPES.items()
        for precision in PREFERRED_PRECISIONS
    ]
    rows: list[tuple[str, ...]] = []
    for name, one in footprints:
        tensors = memory_simulation.simulate_sessions(one.shape, one.precision).highest
        taken = tensors + reserve_bytes(tensors)
        planned = one.loaded_bytes + WINDOWS_AT_ONCE * one.session_bytes
        gb = [f"{size / GB:.2f}" for size in (one.loaded_bytes, one.session_bytes, planned, taken)]
        rows.append((name, one.precision, *gb, f"{planned / taken:.3f}"))
    headers = ("model", "precision", "loaded", "a session", "eight, planned", "on meta", "ratio")
    table("Memory, GB", headers, rows)
    known = [cards.find_card(name) for name in NAMES]
    cells = [
        (name, one.precision, *(_sessions(one, card) for card in known)) for name, one in footprints
    ]
    tokens, chunk_s = footprints[0][1].chunk_tokens, footprints[0][1].period_s
    print(f"\n{tokens + 1} passes a chunk of {chunk_s:.2f} s for one session, ", end="")
    print(f"{tokens + WINDOWS_AT_ONCE} for {WINDOWS_AT_ONCE} that share them, at most")
    named = ("model", "precision", *(card.name for card in known))
    table("Sessions by memory / by time / s for a chunk of eight", named, cells)
    costs = [(name, *_costs_of(shape)) for name, shape in STREAMING_SHAPES.items()]
    table("One layer: CPU-s", ("model", "prefill", "pass of 1", "of 8"), costs)


def _sessions(one: StreamingFootprint, card: cards.Card) -> str:
    speed = 1e9 * card.bandwidths[0]
    by_memory = one.sessions(DeviceRoom(card.memory_bytes))
    by_time = one.sessions(DeviceRoom(1 << 50, speed))
    return f"{by_memory} / {by_time} / {one.chunk_s(WINDOWS_AT_ONCE, speed):.2f}"


@torch.inference_mode()
def _costs_of(shape: Any) -> list[str]:
    config = memory_simulation.configured_as(shape)
    config.text_config.num_hidden_layers, config.text_config.vocab_size = 1, 1024
    config.text_config.layer_types = config.text_config.layer_types[:1]
    torch.set_num_threads(1)
    model = memory_simulation.build(config, Precision.FP32)
    for part in (model.model.language_model, model.lm_head):
        part.to_empty(device="cpu")
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.fill_(1e-3)
    decoder, plan = VibeVoiceDecoder(model), MemoryPlan(cache_tokens=2048)
    caches = [decoder.new_cache(plan, 1) for _ in range(WINDOWS_AT_ONCE)]
    frames = decoder.embed(torch.zeros(28, dtype=torch.long))
    continuations = [PromptContinuation([0], cache) for cache in caches]
    works: list[Callable[[], object]] = [
        lambda: decoder.prefill(frames, caches[0], 64),
        lambda: decoder.step(continuations[:1]),
        lambda: decoder.step(continuations),
    ]
    return [f"{min(_cpu_s(work) for _ in range(ROUNDS)):.4f}" for work in works]


def _cpu_s(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
