"""Engines: errors of engines, GPU memory, checkpoints and the model hub."""

from typing import ClassVar, Self

from sidecar.errors.error_base import ErrorKind, Fault, NotFound, SidecarError
from sidecar.errors.service_errors import OutOfMemory, machine_error


class EngineUnavailable(SidecarError, code="engine_unavailable", kind=ErrorKind.BUSY):
    """Engine that cannot run on this machine."""

    fault = Fault.ENGINE
    default_detail = "The engine cannot be used on this machine."
    default_hint = "Run 'vibevoice-asr doctor': it shows what is missing."


class ModelLoadFailed(SidecarError, code="model_load_failed", kind=ErrorKind.BUSY):
    """Failure to load an engine; if a plan says that it cannot fit, `WontFit` before."""

    fault = Fault.ENGINE
    default_detail = "The engine could not be loaded."
    default_hint = "Run 'vibevoice-asr doctor': it shows what is missing."

    @classmethod
    def out_of_memory(cls, precision: str) -> Self:
        """Return the error of a GPU that had no room at the load, although one was planned."""
        return cls(
            f"CUDA out of memory: there is no room for the model in {precision}.",
            hint="Try a smaller precision, or close GPU applications.",
        )


class LoadInterrupted(ModelLoadFailed):
    """Load whose processes died, as the kernel kills them for lack of memory, or took too long."""


class EngineStuck(EngineUnavailable, code="engine_stuck", kind=ErrorKind.BUSY):
    """Worker process that does not end after SIGKILL, because a driver hangs.

    A new one would hang too, so none is started before the old one has ended.
    """

    default_detail = (
        "The worker process hangs and cannot be killed; no new one is started before it ends."
    )
    default_hint = "Check the GPU driver and the disks of this machine; reboot it if necessary."


class ReloadSuperseded(SidecarError, code="reload_superseded", kind=ErrorKind.CONFLICT):
    """Reload that was replaced by a later one, of another precision or model, before it began."""

    default_detail = "A later reload replaced this one."
    default_hint = "The last reload wins; send this one again if you still want its precision."


class ModelLoaded(SidecarError, code="model_loaded", kind=ErrorKind.CONFLICT):
    """Model that is already loaded or being loaded."""

    default_detail = "A model with this name is already loaded."
    default_hint = "Use another name; GET /admin/list_models lists the loaded models."


class ModelInUse(SidecarError, code="model_in_use", kind=ErrorKind.CONFLICT):
    """Installed model that an engine of this service loads."""

    default_detail = "An engine of this service uses this model."
    default_hint = "Restart the service with another engine or model, then delete it."


class ModelPathForbidden(SidecarError, code="model_path_forbidden", kind=ErrorKind.FORBIDDEN):
    """Model in a folder that is not allowed."""

    default_detail = "Models may not be loaded from this folder."
    default_hint = "Use a folder of the setting 'admin_model_roots'."


class ModelUnsuited(SidecarError, code="model_unsuited", kind=ErrorKind.UNPROCESSABLE):
    """Model that no running engine can load.

    For `/admin/load_model` engine, languages and shape have to be those of the model in use; for
    `/reload-model` the engine must run here, and as many recordings at once.
    """

    default_detail = "No running engine can load this model."
    default_hint = (
        "Use a model of the same engine, languages and shape, or restart the service with this one."
    )


class WontFit(SidecarError, code="wont_fit", kind=ErrorKind.WONT_FIT):
    """Too little memory for a recording or a precision, detected before any work. The planner of
    memory names the recording (``fault``) if it would not fit into the whole device either."""

    fault = Fault.DEVICE
    default_detail = "There is not enough memory for this."
    default_hint = "Send a shorter recording, or use a smaller precision: int8, int4."


class GpuOutOfMemory(SidecarError, code="gpu_out_of_memory", kind=ErrorKind.WONT_FIT):
    """GPU out of memory during the work, even with the smallest memory plan. The account of memory
    names the recording (``fault``) if what was planned for it is still there.

    Host applications search the response for the words "CUDA out of memory".
    """

    fault = Fault.DEVICE
    default_detail = "CUDA out of memory."
    default_hint = "Try INT8 or INT4 precision, or close GPU applications."


class DeviceLost(SidecarError, code="device_lost", kind=ErrorKind.BUSY):
    """CUDA error after which the worker process ends; the job is retried in a new one."""

    fault = Fault.ENGINE
    counts_as_death = True
    default_detail = "The GPU stopped working for the worker process."
    default_hint = "Try again. If the error repeats, check the GPU with 'nvidia-smi'."
    default_retry_after = 5


class EngineCrashed(SidecarError, code="engine_crashed", kind=ErrorKind.BUSY):
    """Worker process that died in a job; the job fails if it does so again (`jobs.attempt_end`)."""

    fault = Fault.ENGINE
    counts_as_death = True
    default_detail = "The worker process died while it transcribed this audio."
    default_hint = "Send the file again; if the error repeats with it, please report it."
    default_retry_after = 1


class EngineFailed(SidecarError, code="engine_failed"):
    """Error raised by an engine: a library, its device or the recording may have caused it."""

    fault = Fault.ENGINE
    counts_as_death = True
    timed_out: ClassVar[bool] = False
    """True if the engine took too long."""

    default_detail = "The engine could not transcribe this audio."


def unexpected_engine_error(error: BaseException) -> SidecarError:
    """Return the error of an engine that raised one of Python or a library: the machine's if that
    lacks something. A `MemoryError` weighs as the kernel's kill: a recording may ask for more than
    there is. The process that holds too much ends if a probe of it fails, too."""
    raised = OutOfMemory if isinstance(error, MemoryError) else EngineFailed
    return machine_error(error) or raised(f"The engine failed: {type(error).__name__}.")


class BadCheckpoint(SidecarError, kind=ErrorKind.BUSY):
    """Checkpoint that cannot be used."""

    fault = Fault.ENGINE


class CheckpointNotFound(BadCheckpoint, code="checkpoint_not_found"):
    """Missing checkpoint."""

    default_detail = "There is no checkpoint of VibeVoice-ASR on this machine."
    default_hint = "Run 'vibevoice-asr pull vibevoice', or set VIBEVOICE_MODEL_PATH to its folder."


class CheckpointIncomplete(BadCheckpoint, code="checkpoint_incomplete"):
    """Checkpoint with missing files, as after an interrupted download."""

    default_detail = "Files of the checkpoint are missing."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it resumes the download."


class CheckpointDamaged(BadCheckpoint, code="checkpoint_damaged"):
    """Checkpoint with a damaged file."""

    default_detail = "A file of the checkpoint is damaged."
    default_hint = (
        "Run 'vibevoice-asr pull vibevoice': it checks every file and replaces damaged ones."
    )


class CheckpointNotConverted(BadCheckpoint, code="checkpoint_not_converted"):
    """VibeVoice-ASR in another layout than that of transformers. Releases up to 0.2.0 said so of
    Microsoft's original one, which loads as it is since then."""

    default_detail = "The checkpoint has to be converted to the layout of transformers."
    default_hint = "Get the converted checkpoint: vibevoice-asr pull vibevoice"


class CheckpointUnsafe(BadCheckpoint, code="checkpoint_unsafe"):
    """Checkpoint with code that loading would execute."""

    default_detail = (
        "The checkpoint has pickled weights or its own code, which this service never runs."
    )
    default_hint = "Get a checkpoint with safetensors: vibevoice-asr pull vibevoice"


class CheckpointUnsupported(BadCheckpoint, code="checkpoint_unsupported"):
    """Checkpoint of another model."""

    default_detail = "The checkpoint is not one of VibeVoice-ASR."
    default_hint = "Get the right checkpoint: vibevoice-asr pull vibevoice"


class CheckpointUnwritable(SidecarError, code="checkpoint_unwritable", kind=ErrorKind.STORAGE_FULL):
    """Download folder that cannot be written to."""

    default_detail = "The folder for the checkpoint cannot be written to."
    default_hint = "Set HF_HOME to a writable folder, or name one: vibevoice-asr pull --to DIR"


class HubUnreachable(SidecarError, code="hub_unreachable", kind=ErrorKind.BUSY):
    """Model hub that does not answer, or that the user has disabled (HF_HUB_OFFLINE)."""

    default_detail = "The model hub cannot be reached."
    default_hint = "Check the network and repeat the command: it resumes the download."


class RepositoryNotFound(NotFound, code="repository_not_found"):
    """Model or revision that the hub does not have."""

    default_detail = "The model hub has no such model."
    default_hint = "Use 'vibevoice-asr pull vibevoice', or a repository name (OWNER/NAME)."


class RepositoryForbidden(SidecarError, code="repository_forbidden", kind=ErrorKind.FORBIDDEN):
    """Model to which the hub denies this user access."""

    default_detail = "The model hub denies this user access to this model."
    default_hint = "Accept the terms on the model's page, then set HF_TOKEN to your access token."


class PullRunning(SidecarError, code="pull_running", kind=ErrorKind.CONFLICT):
    """Download to a folder that another process is downloading to."""

    default_detail = "Another 'vibevoice-asr pull' of this checkpoint is running."
    default_hint = "Wait until it has finished; the checkpoint is then available here, too."
