"""Plugin of vibevoice-asr: VibeVoice-ASR on ggml, for machines without CUDA.

Every start of the service imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from sidecar.audio import VIBEVOICE_SAMPLE_RATE
from sidecar.config.setting_types import OptionalPath, SettingsGroup, setting
from sidecar.interfaces.engine_interface import EngineSpec, PluginEngine, Precision
from sidecar.plugin import Plugin

if TYPE_CHECKING:
    import typer

    from sidecar.checkpoints.checkpoint import ModelCheckpoint
    from sidecar.config.settings import Settings
    from sidecar.service.system_checks import CheckFinding
    from vibevoice_asr_ggml.files import GgmlFootprint


class GgmlSettings(SettingsGroup):
    """VibeVoice-ASR on ggml: another build of its library."""

    ggml_libraries: OptionalPath = setting(
        None,
        "Folder with the libraries of ggml, such as those built for Vulkan, CUDA or HIP; if unset, "
        "those of the package 'libggml-python'.",
    )
    ggml_threads: int = setting(
        0, "Threads of ggml on the processor; 0: one for each that is allowed.", ge=0, le=512
    )


SPEC = EngineSpec(
    name="vibevoice-ggml",
    title="VibeVoice-ASR 7B (ggml)",
    factory="vibevoice_asr_ggml.engine:GgmlEngine",
    sample_rate=VIBEVOICE_SAMPLE_RATE,
    precisions=(Precision.INT4, Precision.INT8, Precision.FP16, Precision.FP32),
    diarizes=True,
    requires=("libggml", "tokenizers"),
    steerable=True,
    resumes="vibevoice-ggml-1",  # changes whenever the meaning of resume points changes
)


def _model(settings: Settings) -> tuple[EngineSpec, ModelCheckpoint]:
    from vibevoice_asr_ggml.files import find_files

    own = GgmlSettings.of(settings)
    return find_files(SPEC, settings.model_path, own.ggml_libraries, own.ggml_threads)


def _footprints(spec: EngineSpec, checkpoint: ModelCheckpoint) -> Mapping[Precision, GgmlFootprint]:
    from vibevoice_asr_ggml.files import footprints_of

    return footprints_of(spec, checkpoint)


def _checks(settings: Settings) -> Iterable[CheckFinding]:
    from vibevoice_asr_ggml.files import findings

    libraries = GgmlSettings.of(settings).ggml_libraries
    return findings(settings.engine == SPEC.name, settings.model_path, libraries)


def _add_commands(app: typer.Typer) -> None:
    from vibevoice_asr_ggml.command import HELP, convert_ggml

    app.command("convert-ggml", help=HELP)(convert_ggml())


PLUGIN = Plugin(
    name="vibevoice_ggml",
    settings=GgmlSettings,
    engines=(
        PluginEngine(
            spec=SPEC,
            description="'vibevoice-ggml' runs VibeVoice-ASR from a GGUF file, also without CUDA.",
            model=_model,
            footprints=_footprints,
        ),
    ),
    add_commands=_add_commands,
    checks=_checks,
)
