"""Sample recording: two speakers, 28 seconds of English, in the wheel of the embedded engine."""

from importlib.util import find_spec
from pathlib import Path

_PACKAGE, _FILE = "moonshine_voice", "assets/endgame_nagg_nell.wav"


def find_sample() -> Path | None:
    """Return the WAV file, or `None` if it is not installed."""
    library = find_spec(_PACKAGE)
    for folder in (library and library.submodule_search_locations) or []:
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    return None
