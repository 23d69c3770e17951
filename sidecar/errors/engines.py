"""Engines: loading one, the memory it needs, and how it ends."""

from __future__ import annotations

from sidecar.errors.error_base import Kind, SidecarError


class EngineUnavailable(SidecarError):
    """The engine that was asked for cannot run here."""

    code = "engine_unavailable"
    kind = Kind.BUSY
    default_detail = "The engine cannot be used on this machine."
    default_hint = "Run 'vibevoice-asr doctor'; it says what is missing."


class ModelLoadFailed(SidecarError):
    """The engine could not be loaded."""

    code = "model_load_failed"
    kind = Kind.BUSY
    default_detail = "The engine could not be loaded."
    default_hint = "Run 'vibevoice-asr doctor'; it says what is missing."


class EngineStuck(EngineUnavailable):
    """The engine's process was killed and does not end, as where a driver hangs: another would hang
    there, too, so none is started before that one has gone."""

    code = "engine_stuck"
    kind = Kind.BUSY
    default_detail = (
        "The engine's process hangs where nothing can end it, and none takes its place."
    )
    default_hint = "Look at the driver and the disks of this machine; start it anew if need be."


class ReloadSuperseded(SidecarError):
    """A reload that another one, at another precision, overtook before its turn came."""

    code = "reload_superseded"
    kind = Kind.CONFLICT
    default_detail = "Another reload overtook this one."
    default_hint = "The last reload counts; ask again if you still want another precision."


class AdminOff(SidecarError):
    """The administrators' API where it is not on, or nobody could be told from others."""

    code = "admin_off"
    kind = Kind.FORBIDDEN
    default_detail = "The administrators' API is not on."
    default_hint = "Set VIBEVOICE_ADMIN, and a token (docs/operations.md)."


class ModelLoaded(SidecarError):
    """A model is to be loaded that is there, or on its way."""

    code = "model_loaded"
    kind = Kind.CONFLICT
    default_detail = "There is a model of this name already."
    default_hint = "GET /admin/list_models has those that are there; take another name."


class ModelPathForbidden(SidecarError):
    """A model lies where none may be loaded from."""

    code = "model_path_forbidden"
    kind = Kind.FORBIDDEN
    default_detail = "Models are not loaded from this folder."
    default_hint = "The setting 'admin_model_roots' has the folders that they may be loaded from."


class ModelUnsuited(SidecarError):
    """Other weights of an engine than those that the service was started with can be loaded where
    the same is true of both."""

    code = "model_unsuited"
    kind = Kind.UNPROCESSABLE
    default_detail = "No engine that runs here can work with this model."
    default_hint = (
        "The same engine, languages and shape are taken; for another, start the service with it."
    )


class WontFit(SidecarError):
    """There is not enough memory for this recording, or this precision; told before any work."""

    code = "wont_fit"
    kind = Kind.WONT_FIT
    default_detail = "There is not enough memory for this."
    default_hint = "Send a shorter recording, or take a smaller precision: int8, int4."


class GpuOutOfMemory(SidecarError):
    """The GPU ran out of memory in the middle, with the smallest plan as well.

    Hosts look for the words "CUDA out of memory" in the answer.
    """

    code = "gpu_out_of_memory"
    kind = Kind.WONT_FIT
    default_detail = "CUDA out of memory."
    default_hint = "Try INT8 or INT4 precision, or close GPU applications."


class DeviceLost(SidecarError):
    """The GPU's driver gave up on the engine's process, which ends; the job is tried anew."""

    code = "device_lost"
    kind = Kind.BUSY
    default_detail = "The GPU stopped working for the engine's process."
    default_hint = "Try again. If it stays: 'nvidia-smi' tells how the GPU is."
    default_retry_after = 5


class EngineCrashed(SidecarError):
    """The engine's process died in the job, and again when it was tried anew (`jobs.poison`)."""

    code = "engine_crashed"
    kind = Kind.BUSY
    default_detail = "The engine's process died while it worked on this audio."
    default_hint = "The service is up again; if it repeats with this file, please report it."
    default_retry_after = 1


class EngineFailed(SidecarError):
    """The engine raised an error of its own."""

    code = "engine_failed"
    default_detail = "The engine could not transcribe this audio."
