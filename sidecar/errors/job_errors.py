"""Jobs: errors of jobs, the queue and edits."""

from sidecar.errors.error_base import BadRequest, ErrorKind, Fault, NotFound, SidecarError


class QueueFull(SidecarError, code="queue_full", kind=ErrorKind.BUSY):
    """Full queue."""

    default_detail = "The queue is full."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class JobNotFound(NotFound, code="job_not_found"):
    """Unknown or deleted job."""

    default_detail = "There is no job with this id."
    default_hint = (
        "Finished jobs are deleted after a while, and all jobs with a restart of the service "
        "unless it runs with --keep-jobs; submit the recording again."
    )


class JobNotDone(SidecarError, code="job_not_done", kind=ErrorKind.CONFLICT):
    """Request for the transcript of a job that still waits or runs."""

    default_detail = "The job has not finished yet: there is no transcript."
    default_hint = "Follow its events, which have the text so far, or ask again later."


class JobCancelled(SidecarError, code="job_cancelled", kind=ErrorKind.CANCELLED):
    """Job that was cancelled before it finished."""

    default_detail = "The job was cancelled."
    default_hint = "Submit it again if this was not intended."


class IdempotencyKeyReused(
    SidecarError, code="idempotency_key_reused", kind=ErrorKind.UNPROCESSABLE
):
    """Idempotency-Key that was sent with another request."""

    default_detail = "This Idempotency-Key was used for another request."
    default_hint = "Use a new key for each recording; repeat a key only with the same request."


class RecordingNotKept(NotFound, code="recording_not_kept"):
    """Job without a stored recording."""

    default_detail = "The recording of this job is not kept."
    default_hint = (
        "Recordings are kept with the setting 'keep_jobs' and, after the end of their jobs, "
        "'keep_recordings_mb'; files named by 'audio_path' never are. Play your own file."
    )


class EditImpossible(BadRequest, code="edit_impossible", kind=ErrorKind.UNPROCESSABLE):
    """Edit that names something missing, or that is impossible for this transcript."""

    default_detail = "This edit is not possible for this transcript."
    default_hint = (
        "No operation was applied; fetch the transcript again and correct the operations."
    )


class VoicesNotKept(SidecarError, code="voices_not_kept", kind=ErrorKind.CONFLICT):
    """Split of a speaker by voice, in a job without stored speaker embeddings."""

    default_detail = "No speaker embeddings were stored with the segments of this job."
    default_hint = (
        "Speaker embeddings are stored if the setting 'people' was on, the request did not have "
        "recognise=false, and the engine diarizes. Split by a list of 'segments' instead."
    )


class DiarizationNotKept(SidecarError, code="diarization_not_kept", kind=ErrorKind.CONFLICT):
    """Another diarization of a job whose embeddings were not kept."""

    default_detail = "Nothing was kept of this job's diarization."
    default_hint = (
        "The embedded engine and Whisper keep it, for jobs with diarization of up to some ten "
        "hours, unless the request had recognise=false or channels=separate. Submit the recording "
        "again with 'num_speakers', or correct the speakers by edits."
    )


class TranscriptChanged(SidecarError, code="transcript_changed", kind=ErrorKind.PRECONDITION):
    """Edit of a transcript that was edited after the revision in 'If-Match', or diarized again."""

    default_detail = "The transcript has another revision than 'If-Match' names."
    default_hint = (
        "Fetch the transcript again, and send the edit with the new ETag if it still applies."
    )


class EditsFull(SidecarError, code="edits_full", kind=ErrorKind.CONFLICT):
    """Limit of edits of a transcript."""

    default_detail = "This transcript has reached its limit of edits."
    default_hint = "Fetch the transcript in the format that you need, and edit that file."


class Unschedulable(SidecarError, code="unschedulable", kind=ErrorKind.UNPROCESSABLE):
    """Shared job that no available node can run."""

    fault = Fault.RECORDING
    default_detail = "No available node can run this job."
    default_hint = "Change the request as the detail says, or start a node that can run it."
