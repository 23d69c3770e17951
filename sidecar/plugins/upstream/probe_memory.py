"""Memory, for a day, of the form in which servers answered a second of speech."""

import json
import logging
from pathlib import Path

from sidecar import files
from sidecar.clock import wall_time
from sidecar.errors import SettingsInvalid
from sidecar.plugins.upstream.upstream_dialect import FORMS, PARSE_ERRORS

log = logging.getLogger(__name__)

FILE_NAME = "upstreams.json"
MAX_FILE_BYTES = 64 << 10
REMEMBERED_S = 86_400.0


def read_forms(path: Path) -> dict[str, tuple[str, float]]:
    """Return the form of each server of the last day, and when it answered; none of a file that is
    broken or missing."""
    now = wall_time()
    try:
        stored = json.loads(files.read(path, MAX_FILE_BYTES)).items()
        known = {server: (str(form), float(at)) for server, (form, at) in stored}
    except (SettingsInvalid, *PARSE_ERRORS):
        return {}
    fresh = [one for one in known.items() if 0 <= now - one[1][1] < REMEMBERED_S]
    return {server: (form, at) for server, (form, at) in fresh if form in FORMS}


def remember_form(path: Path, server: str, form: str) -> None:
    """Note that a server just answered in a form; a file that cannot be written is only logged."""
    known = read_forms(path) | {server: (form, wall_time())}
    try:
        files.make_folder(path.parent)
        files.write(path, json.dumps(known).encode())
    except SettingsInvalid as error:
        log.warning("what upstreams answered cannot be remembered: %s", error)
