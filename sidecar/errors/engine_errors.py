"""Engines: errors of engines, checkpoints and upstreams."""

from __future__ import annotations

from sidecar.errors.error_base import ErrorKind, NotFound, SidecarError


class EngineUnavailable(SidecarError, code="engine_unavailable", kind=ErrorKind.BUSY):
    """The engine that was asked for cannot run here."""

    default_detail = "The engine cannot be used on this machine."
    default_hint = "Run 'vibevoice-asr doctor'; it says what is missing."


class ModelLoadFailed(SidecarError, code="model_load_failed", kind=ErrorKind.BUSY):
    """The engine could not be loaded."""

    default_detail = "The engine could not be loaded."
    default_hint = "Run 'vibevoice-asr doctor'; it says what is missing."


class EngineStuck(EngineUnavailable, code="engine_stuck", kind=ErrorKind.BUSY):
    """The engine's process was killed and does not end, as where a driver hangs: another would hang
    there, too, so none is started before that one has gone."""

    default_detail = (
        "The engine's process hangs where nothing can end it, and none takes its place."
    )
    default_hint = "Look at the driver and the disks of this machine; start it anew if need be."


class ReloadSuperseded(SidecarError, code="reload_superseded", kind=ErrorKind.CONFLICT):
    """A reload that another one, at another precision, overtook before its turn came."""

    default_detail = "Another reload overtook this one."
    default_hint = "The last reload counts; ask again if you still want another precision."


class AdminOff(SidecarError, code="admin_off", kind=ErrorKind.FORBIDDEN):
    """The administrators' API where it is not on, or nobody could be told from others."""

    default_detail = "The administrators' API is not on."
    default_hint = "Set VIBEVOICE_ADMIN, and a token (docs/operations.md)."


class ModelLoaded(SidecarError, code="model_loaded", kind=ErrorKind.CONFLICT):
    """A model is to be loaded that is there, or on its way."""

    default_detail = "There is a model of this name already."
    default_hint = "GET /admin/list_models has those that are there; take another name."


class ModelPathForbidden(SidecarError, code="model_path_forbidden", kind=ErrorKind.FORBIDDEN):
    """A model lies where none may be loaded from."""

    default_detail = "Models are not loaded from this folder."
    default_hint = "The setting 'admin_model_roots' has the folders that they may be loaded from."


class ModelUnsuited(SidecarError, code="model_unsuited", kind=ErrorKind.UNPROCESSABLE):
    """Other weights of an engine than those that the service was started with can be loaded where
    the same is true of both."""

    default_detail = "No engine that runs here can work with this model."
    default_hint = (
        "The same engine, languages and shape are taken; for another, start the service with it."
    )


class WontFit(SidecarError, code="wont_fit", kind=ErrorKind.WONT_FIT):
    """There is not enough memory for this recording, or this precision; told before any work."""

    default_detail = "There is not enough memory for this."
    default_hint = "Send a shorter recording, or take a smaller precision: int8, int4."


class GpuOutOfMemory(SidecarError, code="gpu_out_of_memory", kind=ErrorKind.WONT_FIT):
    """The GPU ran out of memory in the middle, with the smallest plan as well.

    Hosts look for the words "CUDA out of memory" in the answer.
    """

    default_detail = "CUDA out of memory."
    default_hint = "Try INT8 or INT4 precision, or close GPU applications."


class DeviceLost(SidecarError, code="device_lost", kind=ErrorKind.BUSY):
    """The GPU's driver gave up on the engine's process, which ends; the job is tried anew."""

    default_detail = "The GPU stopped working for the engine's process."
    default_hint = "Try again. If it stays: 'nvidia-smi' tells how the GPU is."
    default_retry_after = 5


class EngineCrashed(SidecarError, code="engine_crashed", kind=ErrorKind.BUSY):
    """The engine's process died in the job, and again when it was tried anew
    (`jobs.job_record`)."""

    default_detail = "The engine's process died while it worked on this audio."
    default_hint = "The service is up again; if it repeats with this file, please report it."
    default_retry_after = 1


class EngineFailed(SidecarError, code="engine_failed"):
    """The engine raised an error of its own."""

    default_detail = "The engine could not transcribe this audio."


class BadCheckpoint(SidecarError, kind=ErrorKind.BUSY):
    """The weights that an engine needs cannot be used."""


class CheckpointNotFound(BadCheckpoint, code="checkpoint_not_found"):
    """No checkpoint where one was looked for."""

    default_detail = "There is no checkpoint of VibeVoice-ASR on this machine."
    default_hint = (
        "Get it with 'vibevoice-asr pull vibevoice', or set VIBEVOICE_MODEL_PATH to its folder."
    )


class CheckpointIncomplete(BadCheckpoint, code="checkpoint_incomplete"):
    """Files are missing; a download that was interrupted looks so."""

    default_detail = "Files of the checkpoint are missing."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it goes on where it stopped."


class CheckpointDamaged(BadCheckpoint, code="checkpoint_damaged"):
    """A file is there, and is not what it should be."""

    default_detail = "A file of the checkpoint is damaged."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it checks every file and mends."


class CheckpointNotConverted(BadCheckpoint, code="checkpoint_not_converted"):
    """VibeVoice-ASR as Microsoft published it first, which transformers does not load."""

    default_detail = "The checkpoint has the original layout, not the one of transformers."
    default_hint = "Get the converted one: vibevoice-asr pull vibevoice"


class CheckpointUnsafe(BadCheckpoint, code="checkpoint_unsafe"):
    """To load it would be to run what it says."""

    default_detail = "The checkpoint has pickled weights or code of its own, which is never run."
    default_hint = "Get one with safetensors: vibevoice-asr pull vibevoice"


class CheckpointUnsupported(BadCheckpoint, code="checkpoint_unsupported"):
    """A checkpoint of another model."""

    default_detail = "The checkpoint is not of VibeVoice-ASR."
    default_hint = "Get the right one: vibevoice-asr pull vibevoice"


class CheckpointUnwritable(SidecarError, code="checkpoint_unwritable", kind=ErrorKind.STORAGE_FULL):
    """The folder that a checkpoint is downloaded to cannot be written."""

    default_detail = "The folder for the checkpoint cannot be written."
    default_hint = "Set HF_HOME to a folder that can be, or name one: vibevoice-asr pull --to DIR"


class HubUnreachable(SidecarError, code="hub_unreachable", kind=ErrorKind.BUSY):
    """The place that checkpoints are downloaded from does not answer, or may not be asked."""

    default_detail = "The model hub cannot be reached."
    default_hint = "Check the network; the same command goes on where it stopped."


class RepositoryNotFound(NotFound, code="repository_not_found"):
    """The hub has no such model, or no such revision of it."""

    default_detail = "The model hub has no such model."
    default_hint = "Use 'vibevoice-asr pull vibevoice', or a name such as OWNER/NAME."


class RepositoryForbidden(SidecarError, code="repository_forbidden", kind=ErrorKind.FORBIDDEN):
    """The hub does not give it to this user."""

    default_detail = "The model hub does not let this user have this model."
    default_hint = "Accept its terms on its page, then set HF_TOKEN to a token of yours."


class PullRunning(SidecarError, code="pull_running", kind=ErrorKind.CONFLICT):
    """Somebody else is downloading to the same place."""

    default_detail = "Another 'vibevoice-asr pull' of this checkpoint is at work."
    default_hint = "Wait for it; what it has downloaded is then here too."


class UpstreamError(SidecarError, kind=ErrorKind.BUSY):
    """The server that hears for the engine 'upstream' did not."""


class UpstreamUnreachable(UpstreamError, code="upstream_unreachable"):
    """No connection, to none of them."""

    default_detail = "No upstream answers."
    default_hint = "Start the server that VIBEVOICE_UPSTREAM names, or check its address and port."
    default_retry_after = 5


class UpstreamBusy(UpstreamError, code="upstream_busy"):
    """It has too much to do, and went on saying so for as long as the recording was worth."""

    default_detail = "The upstream is busy."
    default_hint = "Try again after the time in Retry-After, or name a second upstream."
    default_retry_after = 10


class UpstreamTimeout(UpstreamError, code="upstream_timeout"):
    """It took longer than a recording of this length may take."""

    default_detail = "The upstream took too long."
    default_hint = "If it is slow and not stuck, name a second upstream."
    default_retry_after = 10


class UpstreamFailed(UpstreamError, code="upstream_failed"):
    """It broke in the middle, again and again, or said that something is wrong with itself."""

    default_detail = "The upstream failed in the middle of this recording."
    default_hint = "Look into that server's log; it is not this service that failed."
    default_retry_after = 5


class UpstreamRefused(UpstreamError, code="upstream_refused", kind=ErrorKind.FAILED):
    """It is there, and will not do this."""

    default_detail = "The upstream refused the request."
    default_hint = "Check VIBEVOICE_UPSTREAM_DIALECT, VIBEVOICE_UPSTREAM_MODEL and the key."


class UpstreamGarbled(UpstreamError, code="upstream_garbled", kind=ErrorKind.FAILED):
    """Its answer cannot be read."""

    default_detail = "The upstream's answer cannot be read."
    default_hint = "Check that VIBEVOICE_UPSTREAM_DIALECT is the kind of server that answers there."
