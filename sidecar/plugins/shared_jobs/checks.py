"""Check of the database and the storage of shared jobs, for the command `doctor`."""

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.jobs.recovery import jobs_folder
from sidecar.plugins.shared_jobs.postgres_database import describe_database, known_cipher
from sidecar.plugins.shared_jobs.postgres_settings import shared_address
from sidecar.plugins.shared_jobs.settings import SharedJobSettings
from sidecar.plugins.shared_jobs.storage_selection import (
    check_storage,
    create_recording_storage,
)
from sidecar.service.system_checks import CheckFinding, CheckState
from sidecar.storage.encryption import journal_key
from sidecar.storage.job_journal import UPLOADS_FOLDER
from sidecar.storage.recording_storage import FolderStorage, store_code


def check_shared_jobs(settings: Settings) -> CheckFinding:
    """Check both; change neither."""
    try:
        address = shared_address(settings)
        secret, folder = journal_key(settings), jobs_folder(settings) / UPLOADS_FOLDER
        text = describe_database(address)
        storage = create_recording_storage(settings, folder)
        check_storage(storage, patience_s=0.0)
        cipher = known_cipher(address, secret)
        uploads = SharedJobSettings.of(settings).uploads
        if cipher is not None and isinstance(storage, FolderStorage):
            if uploads:
                storage.join(store_code(cipher))
                storage.check_joined()
            else:
                storage.check_owner(store_code(cipher))
    except errors.SettingsInvalid as error:
        return CheckFinding("kept jobs", CheckState.BAD, error.detail, error.hint)
    return CheckFinding("kept jobs", CheckState.GOOD, f"{text}; recordings in {storage}")
