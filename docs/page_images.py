"""Take the pictures of the page for the docs: docs/images/page-light.png, page-dark.png and
page-speaker.png.

    python docs/page_images.py interview.wav     # stereo: one person on each channel

The committed ones are of two readers of LibriSpeech, each on a channel. It needs what the tests of
the page need.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests/support")]

from browser_visitor import Visitor, spoken  # noqa: E402
from service_process import Server, new_file  # noqa: E402

SIZE = 1280, 776
KEY = "0123456789abcdef" * 4


def take(recording: Path, folder: Path) -> None:
    """Transcribe the recording on the page, and take the pictures."""
    visitor = Visitor(new_file(folder / "spoken.wav", spoken()))
    try:
        _take(visitor, recording, folder)
    finally:
        visitor.driver.quit()


def _take(visitor: Visitor, recording: Path, folder: Path) -> None:
    picture = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
    visitor.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", picture)
    with Server(folder / "service", engine="moonshine", people=1, journal_key=KEY) as server:
        visitor.opens(server)
        visitor.sees(".options summary").click()
        visitor.sees(".options .check").click()
        visitor.sees(".options summary").click()
        visitor.sends(recording)
        visitor.sees("#main .doubtful")
        visitor.all(".row .said")[2].click()
        visitor.js("document.querySelector('audio').pause()")
        for theme in ("light", "dark"):
            wanted = [{"name": "prefers-color-scheme", "value": theme}]
            visitor.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
            visitor.driver.save_screenshot(str(HERE / f"images/page-{theme}.png"))
        visitor.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        visitor.sees(".lane").click()
        visitor.sees("dialog[open]").screenshot(str(HERE / "images/page-speaker.png"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        take(Path(sys.argv[1]).resolve(), Path(scratch))
