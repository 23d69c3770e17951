"""Checkpoints: weights on the disk, and on their way to it."""

from __future__ import annotations

from sidecar.errors.error_base import Kind, NotFound, SidecarError


class BadCheckpoint(SidecarError):
    """The weights that an engine needs cannot be used."""

    kind = Kind.BUSY


class CheckpointNotFound(BadCheckpoint):
    """No checkpoint where one was looked for."""

    code = "checkpoint_not_found"
    default_detail = "There is no checkpoint of VibeVoice-ASR on this machine."
    default_hint = (
        "Get it with 'vibevoice-asr pull vibevoice', or set VIBEVOICE_MODEL_PATH to its folder."
    )


class CheckpointIncomplete(BadCheckpoint):
    """Files are missing; a download that was interrupted looks so."""

    code = "checkpoint_incomplete"
    default_detail = "Files of the checkpoint are missing."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it goes on where it stopped."


class CheckpointDamaged(BadCheckpoint):
    """A file is there, and is not what it should be."""

    code = "checkpoint_damaged"
    default_detail = "A file of the checkpoint is damaged."
    default_hint = "Run 'vibevoice-asr pull vibevoice': it checks every file and mends."


class CheckpointNotConverted(BadCheckpoint):
    """VibeVoice-ASR as Microsoft published it first, which transformers does not load."""

    code = "checkpoint_not_converted"
    default_detail = "The checkpoint has the original layout, not the one of transformers."
    default_hint = "Get the converted one: vibevoice-asr pull vibevoice"


class CheckpointUnsafe(BadCheckpoint):
    """To load it would be to run what it says."""

    code = "checkpoint_unsafe"
    default_detail = "The checkpoint has pickled weights or code of its own, which is never run."
    default_hint = "Get one with safetensors: vibevoice-asr pull vibevoice"


class CheckpointUnsupported(BadCheckpoint):
    """A checkpoint of another model."""

    code = "checkpoint_unsupported"
    default_detail = "The checkpoint is not of VibeVoice-ASR."
    default_hint = "Get the right one: vibevoice-asr pull vibevoice"


class CheckpointUnwritable(SidecarError):
    """The folder that a checkpoint is downloaded to cannot be written."""

    code = "checkpoint_unwritable"
    kind = Kind.STORAGE_FULL
    default_detail = "The folder for the checkpoint cannot be written."
    default_hint = "Set HF_HOME to a folder that can be, or name one: vibevoice-asr pull --to DIR"


class HubUnreachable(SidecarError):
    """The place that checkpoints are downloaded from does not answer, or may not be asked."""

    code = "hub_unreachable"
    kind = Kind.BUSY
    default_detail = "The model hub cannot be reached."
    default_hint = "Check the network; the same command goes on where it stopped."


class RepositoryNotFound(NotFound):
    """The hub has no such model, or no such revision of it."""

    code = "repository_not_found"
    default_detail = "The model hub has no such model."
    default_hint = "Use 'vibevoice-asr pull vibevoice', or a name such as OWNER/NAME."


class RepositoryForbidden(SidecarError):
    """The hub does not give it to this user."""

    code = "repository_forbidden"
    kind = Kind.FORBIDDEN
    default_detail = "The model hub does not let this user have this model."
    default_hint = "Accept its terms on its page, then set HF_TOKEN to a token of yours."


class PullRunning(SidecarError):
    """Somebody else is downloading to the same place."""

    code = "pull_running"
    kind = Kind.CONFLICT
    default_detail = "Another 'vibevoice-asr pull' of this checkpoint is at work."
    default_hint = "Wait for it; what it has downloaded is then here too."
