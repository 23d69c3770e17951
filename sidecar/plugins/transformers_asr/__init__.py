"""Recognizers of transformers: one engine for checkpoints whose classes that library has.

The model is chosen by the folder that the settings name, and its class by `config.json`. Speakers,
windows, word times and live sessions are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sidecar.audio import SAMPLE_RATE
from sidecar.interfaces import engine_interface
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    from sidecar.checkpoints.checkpoint import ModelCheckpoint
    from sidecar.config.settings import Settings
    from sidecar.plugins.transformers_asr.utterance_footprint import UtteranceFootprint

SPEC = engine_interface.EngineSpec(
    name="transformers",
    factory="sidecar.plugins.transformers_asr.engine:TransformersEngine",
    title="Other recognizers (transformers)",
    sample_rate=SAMPLE_RATE,
    precisions=(
        engine_interface.Precision.FP32,
        engine_interface.Precision.BF16,
        engine_interface.Precision.FP16,
    ),
    diarizes=True,
    by_voices=True,
    counted=True,
    requires=("torch", "transformers"),
    sessions=32,  # an upper limit: `live.runtime.load_shedding` measures how many may speak
    resumes="transformers-1",  # changes whenever the meaning of resume points changes
)


def _model(settings: Settings) -> tuple[engine_interface.EngineSpec, ModelCheckpoint]:
    from sidecar.plugins.transformers_asr.architectures import (
        find_checkpoint,
        require_packages,
        spec_of,
    )

    found = find_checkpoint(settings.model_path)
    require_packages(found.config)
    return spec_of(found.config, on_gpu=_finds_gpu(settings)), found


def _footprints(
    spec: engine_interface.EngineSpec, checkpoint: ModelCheckpoint
) -> Mapping[engine_interface.Precision, UtteranceFootprint]:
    from sidecar.plugins.transformers_asr.utterance_footprint import footprints_of

    return footprints_of(spec, checkpoint)


def _finds_gpu(settings: Settings) -> bool:
    from sidecar.engines.torch_build import torch_has_cuda
    from sidecar.gpu_memory.gpu_devices import read_gpu_memory

    return settings.device != "cpu" and torch_has_cuda() and read_gpu_memory() is not None


PLUGIN = Plugin(
    name="transformers_asr",
    engines=(
        engine_interface.PluginEngine(
            spec=SPEC,
            description="'transformers' runs other models, such as Parakeet or Canary, from "
            "'model_path' (docs/models.md).",
            model=_model,
            footprints=_footprints,
        ),
    ),
)
