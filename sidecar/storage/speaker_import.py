"""Import of enrolled speakers from a file into another store."""

from collections.abc import Sequence
from pathlib import Path

from sidecar import errors
from sidecar.storage import speaker_store


async def import_speaker_file(
    folder: Path, secret: str, store: speaker_store.SpeakerStore
) -> tuple[int, int]:
    """Import all speakers of the file in ``folder`` into ``store``, with id, owner and dates.
    Return how many were added, and how many were there already. The file does not change; the
    store is closed.

    Raises:
        errors.SettingsInvalid: there is no such file, a service has it open, or the key is wrong.
        errors.PeopleFull: an owner would have more than the limit.
        errors.JournalUnreachable: some may be missing. A repetition does no harm.
    """
    if not (folder / speaker_store.SPEAKER_FILE).is_file():
        raise errors.SettingsInvalid(
            f"There is no file of enrolled speakers in {folder}.",
            hint="Name its folder: --people-dir, or VIBEVOICE_DATA_DIR.",
        )
    file = speaker_store.SqliteSpeakerStore(folder, secret)
    all_speakers = file.all_speakers
    await file.close()
    added = 0
    try:
        for speaker in all_speakers:
            before = await store.of(speaker.owner)
            added += all(one.id != speaker.id for one in before)
            await store.keep(speaker.owner, _add_if_missing(speaker))
    finally:
        await store.close()
    return added, len(all_speakers) - added


def _add_if_missing(speaker: speaker_store.EnrolledSpeaker) -> speaker_store.SpeakerUpdate:
    def decide(speakers: Sequence[speaker_store.EnrolledSpeaker]) -> speaker_store.EnrolledSpeaker:
        for one in speakers:
            if one.id == speaker.id:
                return one  # as stored: it may have been renamed since
        if len(speakers) >= speaker_store.MAX_ENROLLED_SPEAKERS:
            raise errors.PeopleFull(
                f"The owner of '{speaker.name}' has reached the limit of enrolled speakers."
            )
        return speaker

    return decide
