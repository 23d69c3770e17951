"""Jobs: the queue, what is kept of them, and edits of their transcripts."""

from __future__ import annotations

from sidecar.errors.error_base import BadRequest, Kind, NotFound, SidecarError


class QueueFull(SidecarError):
    """As many jobs as the queue takes are waiting."""

    code = "queue_full"
    kind = Kind.BUSY
    default_detail = "The queue is full."
    default_hint = "Try again after the time in Retry-After."
    default_retry_after = 5


class JobNotFound(NotFound):
    """No such job, or no longer."""

    code = "job_not_found"
    default_detail = "There is no job with this id."
    default_hint = "Finished jobs are kept for a while only; submit it again."


class JobNotDone(SidecarError):
    """The transcript of a job that still waits or runs."""

    code = "job_not_done"
    kind = Kind.CONFLICT
    default_detail = "The job has not ended yet: there is no transcript."
    default_hint = "Follow its events, or ask again; what was said so far is in its events."
    default_retry_after = 2


class JobCancelled(SidecarError):
    """The job was cancelled before it ended."""

    code = "job_cancelled"
    kind = Kind.CANCELLED
    default_detail = "The job was cancelled."
    default_hint = "Submit it again if this was not meant."


class IdempotencyKeyReused(SidecarError):
    """The same Idempotency-Key with another request."""

    code = "idempotency_key_reused"
    kind = Kind.UNPROCESSABLE
    default_detail = "This Idempotency-Key was sent with another request."
    default_hint = "Make a new key for each recording; repeat one only with the same request."


class AudioLost(SidecarError):
    """The audio of a job is not there any more as it was when it was submitted."""

    code = "audio_lost"
    kind = Kind.CONFLICT
    default_detail = "The recording of this job is not there any more."
    default_hint = "Submit it again."


class RecordingNotKept(NotFound):
    """Of a job there is no recording that could be listened to."""

    code = "recording_not_kept"
    default_detail = "The recording of this job is not kept."
    default_hint = (
        "Recordings are kept with the settings 'keep_jobs' and, after the end of their jobs, "
        "'keep_recordings_mb'; files that a client named never are. Play your own file."
    )


class EditImpossible(BadRequest):
    """An edit of a transcript names what is not there, or cannot be done to it."""

    code = "edit_impossible"
    kind = Kind.UNPROCESSABLE
    default_detail = "That cannot be done to this transcript."
    default_hint = "None of the operations was done; fetch the transcript and send them anew."


class VoicesNotKept(SidecarError):
    """A speaker is to be split by voice, and of what the segments sound like nothing was kept."""

    code = "voices_not_kept"
    kind = Kind.CONFLICT
    default_detail = "Nothing was kept of what the segments of this job sound like."
    default_hint = (
        "Voices are kept with jobs that were heard with the setting 'people' on, without "
        "recognise=false, by an engine that tells voices apart. Split by a list of 'segments'."
    )


class TranscriptChanged(SidecarError):
    """Somebody edited the transcript since the revision that was sent."""

    code = "transcript_changed"
    kind = Kind.PRECONDITION
    default_detail = "The transcript is of another revision than 'If-Match' says."
    default_hint = "Fetch it again, and send the edit with the new ETag if it still makes sense."


class EditsFull(SidecarError):
    """A transcript has been edited as often as it may be."""

    code = "edits_full"
    kind = Kind.CONFLICT
    default_detail = "No more edits of this transcript are kept."
    default_hint = "Fetch it in the format that you need, and go on with that."


class JournalUnreachable(SidecarError):
    """The database in which several services keep their jobs does not answer."""

    code = "journal_unreachable"
    kind = Kind.BUSY
    default_detail = "The database in which jobs are kept does not answer now."
    default_hint = "Send it again in a moment, with the same Idempotency-Key; no job is lost."
    default_retry_after = 3


class StorageUnreachable(SidecarError):
    """The folder or the bucket in which recordings are kept does not answer."""

    code = "storage_unreachable"
    kind = Kind.BUSY
    default_detail = "The storage in which recordings are kept does not answer now."
    default_hint = "Send it again in a moment, with the same Idempotency-Key; no job is lost."
    default_retry_after = 5


class Unschedulable(SidecarError):
    """Of services that share their jobs, none that is there can do this one."""

    code = "unschedulable"
    kind = Kind.UNPROCESSABLE
    default_detail = "No node that is there can do this."
    default_hint = "Change the request as the nodes say, or start a node that can do it."
