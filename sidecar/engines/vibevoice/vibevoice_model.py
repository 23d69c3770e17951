"""Loaded VibeVoice-ASR model: loading, audio encoder, prompt."""

import logging
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import psutil
import torch
from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    GenerationConfig,
    VibeVoiceAsrConfig,
    VibeVoiceAsrForConditionalGeneration,
)

from sidecar import errors
from sidecar.audio import VIBEVOICE_SAMPLE_RATE, Block
from sidecar.checkpoints.checkpoint import (
    MODEL_TYPE,
    check_vibevoice_config,
    find_tokenizer,
    has_original_layout,
)
from sidecar.checkpoints.checkpoint_variants import (
    adapter_base,
    is_adapter,
    merged_weights,
    quantized_precision,
)
from sidecar.checkpoints.original_layout import weight_names
from sidecar.engines.torch_build import cuda_build_hint, torch_obstacle
from sidecar.engines.torch_inference import own_error, silence_libraries
from sidecar.engines.vibevoice import SPEC, vibevoice_decoder, vibevoice_generation
from sidecar.engines.vibevoice.original_processor import audio_token_ids, original_processor
from sidecar.engines.vibevoice.torch_generation import TokenGeneration
from sidecar.engines.vibevoice.vibevoice_prompt import (
    HOP_SAMPLES,
    loudness_factor,
    token_count,
    without_marks,
)
from sidecar.gpu_memory.gpu_devices import read_gpu_memory
from sidecar.gpu_memory.memory_footprint import ModelShape
from sidecar.interfaces.engine_interface import (
    LoadOptions,
    MemoryPlan,
    Precision,
    abbreviate_names,
)

_CHUNK_ROUNDING_TOKENS = 5
"""Tokens to a multiple of which the last chunk is padded. On a CPU every length costs time and
memory for new kernels (docs/decisions/vibevoice-engine.md)."""

log = logging.getLogger(__name__)
ENCODER_MODULES = (
    "model.acoustic_tokenizer_encoder",
    "model.semantic_tokenizer_encoder",
    "model.multi_modal_projector",
)
"""Encoders, which are needed until the audio is encoded."""
EMBEDDING_MODULE = "model.language_model.embed_tokens"
OTHER_MODULES = (
    "model.language_model.layers",
    "model.language_model.norm",
    "model.language_model.rotary_emb",
    "lm_head",
)
"""The remaining modules; accelerate raises an error if any is missing."""
UNQUANTIZED = (*ENCODER_MODULES, "lm_head")
"""Modules that stay in 16 bit. Without the prefix bitsandbytes would skip nothing."""
_LOAD_POLL_S = 0.1
"""Interval at which the loaded bytes are read, in seconds."""
_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}


class VibeVoiceAudioEncoder:
    """Both encoders and the projector of a model, fed in chunks; without noise exact at any
    chunk size.

    The acoustic latents are the encoder's mean. The original code adds Gaussian noise of a random
    scale (`sample=True` of `get_audio_features`), so that its transcripts vary from run to run.
    Here only audio that made the model repeat itself has noise, of a fixed seed and scale.
    """

    def __init__(self, model: Any, extractor: Any) -> None:
        self._acoustic = model.model.acoustic_tokenizer_encoder
        self._semantic = model.model.semantic_tokenizer_encoder
        self._projector = model.model.multi_modal_projector
        self._extractor = extractor
        self._noise = model.config.acoustic_tokenizer_encoder_config.vae_std

    def encode(
        self,
        samples: Block,
        chunk_s: float,
        out: Tensor,
        check: vibevoice_decoder.StepCheck,
        *,
        drawn: bool = False,
    ) -> None:
        """Write the embeddings of a recording to ``out``, shape ``(token_count, hidden)``.

        The samples stay in host memory; one chunk at a time is copied to the device. ``drawn``:
        with noise.
        """
        random = torch.Generator().manual_seed(vibevoice_generation.SEED)
        chunk = max(1, round(chunk_s * VIBEVOICE_SAMPLE_RATE / HOP_SAMPLES)) * HOP_SAMPLES
        factor = 1.0
        if self._extractor.normalize_audio:
            factor = loudness_factor(samples, self._extractor.target_dB_FS, self._extractor.eps)
        state: tuple[Any, Any] = (None, None)
        for at in range(0, len(samples), chunk):
            check()
            part = torch.from_numpy(samples[at : at + chunk] * np.float32(factor))
            rounding = _CHUNK_ROUNDING_TOKENS * HOP_SAMPLES
            length = min(chunk, -(-len(part) // rounding) * rounding)
            part = functional.pad(part, (0, length - len(part)))
            wave = part.view(1, 1, -1).to(out.device, out.dtype)
            acoustic = self._acoustic(wave, padding_cache=state[0], use_cache=True)
            check()
            semantic = self._semantic(wave, padding_cache=state[1], use_cache=True)
            state = acoustic.padding_cache, semantic.padding_cache
            latents = acoustic.latents
            if drawn:
                noise = torch.randn(latents.shape, generator=random)
                latents = latents + self._noise * noise.to(latents)
            audio_embeddings = self._projector(latents, semantic.latents)[0]
            target = out[at // HOP_SAMPLES :][: len(audio_embeddings)]
            target[:] = audio_embeddings[: len(target)]


def build_prompt_ids(processor: Any, samples: int, context: str) -> Tensor:
    """Return the token ids ``(n,)`` of the prompt for a recording of ``samples`` at 24 kHz.

    ``context`` contains the client's text. The model's own marks are removed from it: otherwise a
    client could end its turn and write as the model.
    """
    audio = np.zeros(1, np.float32)
    text = processor.apply_transcription_request(
        audio=audio, prompt=sanitize_context(processor.tokenizer, context) or None, tokenize=False
    )[0]
    text = text.replace(processor.audio_duration_token, f"{samples / VIBEVOICE_SAMPLE_RATE:.2f}")
    text = text.replace(processor.audio_token, processor.audio_token * token_count(samples))
    ids: Tensor = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")[
        "input_ids"
    ][0]
    return ids


def sanitize_context(tokenizer: Any, context: str) -> str:
    """Return the lines of ``context``, without empty ones and without anything that the tokenizer
    or the template treats as a mark."""
    return without_marks(context, {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()})


def float_type(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which a precision computes; that of int8 and int4 is fp16 on GPUs that
    have no bf16."""
    narrow = device.type == "cuda" and not vibevoice_decoder.has_bf16(device)
    return _DTYPES.get(precision, torch.float16 if narrow else torch.bfloat16)


@dataclass(frozen=True, slots=True)
class LoadedVibeVoice:
    """Loaded model with its processor, device and precision."""

    model: Any
    processor: Any
    device: torch.device
    precision: Precision


def pick_device(wanted: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        errors.ModelLoadFailed: torch cannot use the GPU. A 7B model on a CPU instead would look as
            if it hung.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    gpu = read_gpu_memory()
    if wanted == "auto" and gpu is None:
        return torch.device("cpu")
    if gpu is not None and (obstacle := torch_obstacle(gpu.name)):
        raise errors.ModelLoadFailed(f"{obstacle[0]}.", hint=obstacle[1])
    try:
        torch.cuda.init()
        reason = "CUDA is not available"
    except (AssertionError, RuntimeError) as error:
        reason = errors.cause_of(error)
    raise errors.ModelLoadFailed(
        f"torch {torch.__version__} cannot use the GPU: {reason}.", hint=cuda_build_hint()
    )


def fail_beyond_free_memory(device: torch.device) -> None:
    """Make torch fail (`torch.OutOfMemoryError`) beyond the memory that is free on a GPU now.
    Otherwise the driver of Windows moves memory to the host, and each token takes seconds."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, (free + own) / total), device)


def host_modules(options: LoadOptions | MemoryPlan) -> list[str]:
    """Return the modules that stay on the host during a load."""
    kept = [*ENCODER_MODULES] if options.evict_encoders else []
    return kept + ([EMBEDDING_MODULE] if options.host_token_table else [])


def device_map(device: torch.device, kept: Sequence[str]) -> dict[str, torch.device | str]:
    """Return the device of each part of the model; the ``kept`` ones stay on the host.

    If the parts are on different devices, each is named: with a default ("") accelerate would move
    everything through that device.
    """
    if device.type == "cpu" or not kept:
        return {"": device}
    everything: dict[str, torch.device | str] = dict.fromkeys(
        (*ENCODER_MODULES, EMBEDDING_MODULE, *OTHER_MODULES), device
    )
    return everything | dict.fromkeys(kept, "cpu")


Loaded = TypeVar("Loaded", bound=LoadedVibeVoice)


def load_with_progress(
    options: LoadOptions,
    load: Callable[[Path, Precision, torch.device, Sequence[str]], Loaded],
    pulled: str,
) -> Generator[float, None, Loaded]:
    """Load by ``options``; yield the share of the weights that is in memory meanwhile. ``pulled``:
    the name of the model for `pull`.

    Raises:
        errors.ModelLoadFailed: it is invalid, or does not fit.
    """
    repair = f"vibevoice-asr pull {pulled}"
    if options.checkpoint is None:
        raise errors.ModelLoadFailed("No checkpoint is set.", hint=f"Run '{repair}'.")
    folder = Path(options.checkpoint)
    device = pick_device(options.device)
    fail_beyond_free_memory(device)
    home = adapter_base(folder).folder if is_adapter(folder) else folder
    expected = sum(file.stat().st_size for file in home.glob("*.safetensors")) or 1
    before = _held_bytes(device)
    thread = ThreadPoolExecutor(1, "load")
    kept = host_modules(options)
    done = thread.submit(load, folder, options.precision, device, kept)
    thread.shutdown(wait=False)
    while not wait([done], timeout=_LOAD_POLL_S).done:
        yield min(0.99, max(0.0, (_held_bytes(device) - before) / expected))
    try:
        loaded = done.result()
    except torch.OutOfMemoryError:
        raise errors.ModelLoadFailed.out_of_memory(options.precision) from None
    except errors.ModelLoadFailed:
        raise
    except Exception as error:  # four libraries raise anything: the checkpoint is invalid
        log.exception("the checkpoint could not be loaded")
        reason = errors.cause_of(error).replace(str(folder), folder.name)
        raise errors.ModelLoadFailed(
            f"The checkpoint could not be loaded: {reason}",
            hint=f"Download it again: {repair}",
        ) from None
    yield 1.0
    return loaded


def load_vibevoice(
    folder: Path, precision: Precision, device: torch.device, kept: Sequence[str] = ()
) -> LoadedVibeVoice:
    """Load the weights, once and directly to their devices, and check that they run. The ``kept``
    modules stay on the host.

    Only safetensors are read, and no code of the checkpoint is run. A quantized checkpoint is
    loaded as what it is, whatever ``precision`` is; a LoRA adapter is merged into its model.

    Raises:
        OSError, ValueError, RuntimeError: errors of transformers for an invalid checkpoint.
        errors.ModelLoadFailed: it loads, but this machine cannot run it at this precision.
    """
    base = adapter_base(folder) if is_adapter(folder) else None
    home = base.folder if base is not None else folder
    settings = base.config if base is not None else check_vibevoice_config(folder)
    stored = quantized_precision(settings)
    precision = stored or precision
    on_cpu = precision is Precision.INT4 and device.type == "cpu"
    if on_cpu and (obstacle := ModelShape.from_config(settings).int4_obstacle):
        raise _not_run_error(precision, f"{obstacle}.")
    silence_libraries()
    dtype = float_type(precision, device)
    placed = device_map(device, kept)
    more: dict[str, Any] = {"dtype": dtype, "device_map": placed}
    if stored is None:
        more["quantization_config"] = quantization(precision, dtype, parted=len(placed) > 1)
    if base is not None:
        more["state_dict"] = merged_weights(base, folder)
    original = has_original_layout(settings)
    if original:
        processor = original_processor(find_tokenizer(home))
        ids = audio_token_ids(processor.tokenizer)
        more |= {
            "config": VibeVoiceAsrConfig(**settings | ids | {"model_type": MODEL_TYPE}),
            "key_mapping": weight_names(settings),
        }
    else:
        processor = AutoProcessor.from_pretrained(
            home, local_files_only=True, trust_remote_code=False
        )
        more["config"] = VibeVoiceAsrConfig.from_pretrained(home)
    model = with_all_weights(home if base is None else None, "vibevoice", **more)
    if original:
        model.generation_config = GenerationConfig(eos_token_id=processor.tokenizer.eos_token_id)
    elif base is not None:
        model.generation_config = GenerationConfig.from_pretrained(home)
    remove_accelerate_hooks(model)
    model.eval().requires_grad_(False)
    run_trial_token(model, precision)
    return LoadedVibeVoice(model, processor, device, precision)


def with_all_weights(folder: Path | None, pulled: str, **options: Any) -> Any:
    """Return the model of `from_pretrained` with these options, of which no weight is made up.
    ``pulled``: its name for `pull`.

    Raises:
        errors.ModelLoadFailed: the checkpoint lacks weights.
    """
    load: Any = VibeVoiceAsrForConditionalGeneration.from_pretrained  # its types know no pair
    model, found = load(
        folder,
        output_loading_info=True,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **options,
    )
    missing = {*found["missing_keys"]}
    if options["config"].text_config.tie_word_embeddings:  # the class of transformers cannot
        model.lm_head.weight = model.get_input_embeddings().weight
        missing.discard("lm_head.weight")
    if missing:
        raise errors.ModelLoadFailed(
            f"The checkpoint lacks weights: {abbreviate_names(sorted(missing), 3)}.",
            hint=f"Download it again: vibevoice-asr pull {pulled}",
        )
    return model


def _not_run_error(
    precision: Precision, reason: str, hint: str = "Use another precision."
) -> errors.ModelLoadFailed:
    text = f"The checkpoint cannot be run in {precision} on this machine: {reason}"
    return errors.ModelLoadFailed(text, hint=hint)


def remove_accelerate_hooks(model: Any) -> None:
    """Undo accelerate's dispatch, which follows a load to more than one device.

    Its hooks would move inputs and weights at each call; `VibeVoiceModel` moves what has to move.
    """
    hooked = [module for module in model.modules() if hasattr(module, "_hf_hook")]
    remove_hook_from_module(model, recurse=True)
    for module in hooked:
        module.__dict__.pop("forward", None)  # the class has the same; the removal set it


def run_trial_token(model: Any, precision: Precision) -> None:
    """Run one token through the language model, so that a failure comes here and not in every job.

    A result that is not finite is a failure, too. It comes from a damaged weight, or from one
    beyond 65,504, the largest number of fp16, through which bitsandbytes converts to 8 bit.

    The run also makes cuBLAS and other libraries allocate their workspaces.

    Raises:
        errors.ModelLoadFailed: it does not run.
        torch.OutOfMemoryError: there is not enough memory.
    """
    language, table = model.model.language_model, model.get_input_embeddings().weight
    like = language.norm.weight
    try:
        with torch.inference_mode():
            token = torch.zeros(1, 1, dtype=torch.long, device=table.device)
            embedding = functional.embedding(token, table).to(like.device, like.dtype)
            hidden = language(inputs_embeds=embedding, use_cache=False).last_hidden_state
            # A GPU's errors are raised only when its result is read.
            finite = bool(model.lm_head(hidden).isfinite().all())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        log.exception("the checkpoint cannot be run in %s", precision)
        raise _not_run_error(precision, errors.cause_of(error)) from None
    if not finite and like.dtype != torch.float16:  # `VibeVoiceModel.widen` handles fp16
        log.error("the checkpoint yields values that are not finite in %s", precision)
        remedy = "'vibevoice-asr pull vibevoice' repairs a damaged checkpoint."
        hint = f"Use another precision; {remedy}"
        raise _not_run_error(precision, "its values are not finite.", hint)


def _held_bytes(device: torch.device) -> int:
    """Return the bytes that this process holds on the device (on the CPU: all of its memory)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def quantization(
    precision: Precision, dtype: torch.dtype, *, parted: bool
) -> BitsAndBytesConfig | None:
    """Return the quantization. ``parted``: some modules are on the host, but no quantized layer."""
    common: dict[str, Any] = {
        "llm_int8_skip_modules": list(UNQUANTIZED),
        "llm_int8_enable_fp32_cpu_offload": parted,
    }
    match precision:
        case Precision.INT8:
            return BitsAndBytesConfig(load_in_8bit=True, **common)
        case Precision.INT4:
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
                **common,
            )
    return None


class VibeVoiceModel:
    """Loaded model (`vibevoice_transcription.WindowModel`), for one thread at a time; the caller
    provides `torch.inference_mode`."""

    spec = SPEC
    out_of_memory = torch.OutOfMemoryError

    def __init__(self, loaded: LoadedVibeVoice) -> None:
        self.loaded = loaded
        self._encoder = VibeVoiceAudioEncoder(loaded.model, loaded.processor.feature_extractor)
        ends = loaded.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        self._decodings: WeakValueDictionary[tuple[int, int], vibevoice_decoder.PlannedDecoder]
        self._decodings = WeakValueDictionary()
        self.frame = vibevoice_generation.segment_template_of(
            loaded.processor.tokenizer.backend_tokenizer
        )

    @property
    def narrow(self) -> bool:
        """Return whether it computes in fp16, which may overflow."""
        return bool(self.loaded.model.model.language_model.norm.weight.dtype == torch.float16)

    def decoding(self, plan: MemoryPlan) -> vibevoice_decoder.PlannedDecoder:
        """Return the decoder of all answers with such a plan, which share its graphs; it is freed
        with the last of them."""
        key = plan.prefill_tile, plan.cache_step
        decoding = self._decodings.get(key)
        if decoding is None:
            decoder = vibevoice_decoder.VibeVoiceDecoder(self.loaded.model)
            decoding = vibevoice_decoder.PlannedDecoder(decoder, plan)
            self._decodings[key] = decoding
        return decoding

    def answers(
        self,
        windows: Sequence[Block],
        plan: MemoryPlan,
        check: vibevoice_decoder.StepCheck,
        planned_decoder: vibevoice_decoder.PlannedDecoder,
        context: str = "",
        drawn: bool = False,
    ) -> list[vibevoice_generation.WindowGeneration]:
        """Encode windows (24 kHz mono) and begin to answer; ``check`` may raise to stop it.
        ``context``: the text beside the audio. ``drawn``: its latents have noise. Evicted encoders
        return once for all.

        Raises:
            NonFiniteLogits: the weights' type is too narrow for this checkpoint.
            torch.OutOfMemoryError: the plan took more memory than there is.
        """
        processor = self.loaded.processor
        fail_beyond_free_memory(self.loaded.device)
        planned_decoder.forget()  # caches of answers that have ended leave before encoders come
        self.place(plan)
        decoder = planned_decoder.decoder
        prompts = []
        try:
            for samples in windows:
                ids = build_prompt_ids(processor, len(samples), context)
                prompts.append(embeddings := decoder.embed(ids))
                first = int((ids == processor.audio_token_id).int().argmax())
                audio_embeddings = embeddings[first : first + token_count(len(samples))]
                self._encoder.encode(
                    samples, plan.encoder_chunk_s, audio_embeddings, check, drawn=drawn
                )
            del embeddings, audio_embeddings
        finally:  # also if it was cancelled: others may decode by a plan without them
            if plan.evict_encoders:
                self._move_encoders(torch.device("cpu"))
        answers = []
        for samples in windows:
            cache = decoder.new_cache(plan, len(prompts[0]))
            logits = planned_decoder.prefill(prompts.pop(0), cache, check)
            if not bool(torch.isfinite(logits).all()):
                raise vibevoice_generation.NonFiniteLogits
            generation = TokenGeneration(planned_decoder, cache, logits, self.frame)
            tokenizer = processor.tokenizer.backend_tokenizer
            answers.append(
                vibevoice_generation.WindowGeneration(
                    generation, tokenizer, self._ends, len(samples) / VIBEVOICE_SAMPLE_RATE
                )
            )
        return answers

    def inference(self) -> AbstractContextManager[Any]:
        """Return the context in which it computes."""
        return torch.inference_mode()

    def own_error(self, error: Exception) -> Exception:
        """Return an error of the device as ours."""
        return own_error(error)

    def free_memory(self) -> None:
        """Return memory of ended work to the device."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def widen(self) -> None:
        """Convert fp16 to bf16, which has the range of fp32; quantized weights stay as they are."""
        self._decodings.clear()
        model = self.loaded.model
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dtype == torch.float16:
                tensor.data = tensor.data.to(torch.bfloat16)
        for module in model.modules():
            if getattr(module, "compute_dtype", None) == torch.float16:  # of a layer in 4 bit
                module.compute_dtype = torch.bfloat16
        if self.loaded.precision is Precision.FP16:
            self.loaded = replace(self.loaded, precision=Precision.BF16)

    def place(self, plan: MemoryPlan) -> None:
        """Move the token table to the plan's device, then the encoders to the model's device.

        In this order: the first move frees memory for the second. Modules in place are not moved.
        """
        table = self.loaded.model.get_input_embeddings()
        table.to("cpu" if plan.host_token_table else self.loaded.device)
        self._move_encoders(self.loaded.device)

    def _move_encoders(self, device: torch.device) -> None:
        inner = self.loaded.model.model
        inner.acoustic_tokenizer_encoder.to(device)
        inner.semantic_tokenizer_encoder.to(device)
        inner.multi_modal_projector.to(device)
