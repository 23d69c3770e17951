"""People: who is known by voice, and clips of voices."""

from __future__ import annotations

from sidecar.errors.audio import BadAudio
from sidecar.errors.error_base import Kind, NotFound, SidecarError


class PersonNotFound(NotFound):
    """No such person."""

    code = "person_not_found"
    default_detail = "There is no such person, or it was deleted."
    default_hint = "GET /v1/people lists yours."


class SpeakerNotFound(NotFound):
    """A job has no such speaker, or nothing is known of its voice."""

    code = "speaker_not_found"
    default_detail = "The job has no such speaker, or its voice was not heard well enough."
    default_hint = (
        "Name one that is in 'speakers' of the transcript's metadata, of a job that was submitted "
        "with the setting 'people' on and without recognise=false."
    )


class PeopleOff(SidecarError):
    """Nobody's voice is kept here."""

    code = "people_off"
    kind = Kind.FORBIDDEN
    default_detail = "This service keeps no voices: the setting 'people' is off."
    default_hint = "Start it with --people (docs/people.md says what is then stored, and where)."


class PeopleFull(SidecarError):
    """As many people as one owner may have."""

    code = "people_full"
    kind = Kind.CONFLICT
    default_detail = "There are as many people as one owner may have."
    default_hint = "Delete one that is not needed any more."


class VoiceAbsent(BadAudio):
    """Nobody speaks in a clip."""

    code = "voice_absent"
    default_detail = "Nobody speaks in the clip."
    default_hint = "Send some seconds of one person speaking."


class VoiceTooShort(BadAudio):
    """Somebody speaks for too short a time."""

    code = "voice_too_short"
    default_detail = "There is too little voice in the clip."
    default_hint = "Send 5 to 10 s of one person speaking, without music."


class SeveralVoices(BadAudio):
    """More than one person speaks in a clip."""

    code = "several_voices"
    default_detail = "More than one person speaks in the clip."
    default_hint = "Cut out a stretch in which one person speaks, or name a job's speaker instead."


class ClipTooLong(BadAudio):
    """A clip of a voice is longer than one."""

    code = "clip_too_long"
    kind = Kind.TOO_LARGE
    default_detail = "The clip is longer than a clip of a voice may be."
    default_hint = "Send 5 to 10 s of one person speaking, or name a job's speaker instead."


class VoicesUnavailable(SidecarError):
    """The models that tell voices apart cannot be run here."""

    code = "voices_unavailable"
    default_detail = "Voices cannot be compared on this machine."
    default_hint = "'vibevoice-asr doctor' says why."
