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
    everybody = file.everybody
    await file.close()
    came = 0
    try:
        for person in everybody:
            before = await store.of(person.owner)
            came += all(one.id != person.id for one in before)
            await store.keep(person.owner, _add_if_missing(person))
    finally:
        await store.close()
    return came, len(everybody) - came


def _add_if_missing(person: speaker_store.EnrolledSpeaker) -> speaker_store.SpeakerUpdate:
    def decide(people: Sequence[speaker_store.EnrolledSpeaker]) -> speaker_store.EnrolledSpeaker:
        for one in people:
            if one.id == person.id:
                return one  # as stored: it may have been renamed since
        if len(people) >= speaker_store.MAX_ENROLLED_SPEAKERS:
            raise errors.PeopleFull(
                f"The owner of '{person.name}' has reached the limit of enrolled speakers."
            )
        return person

    return decide
