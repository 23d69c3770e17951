"""Take a picture of each state of the page: those of the docs, or with a folder all.

    python docs/page_images.py            # docs/images/page-*.webp, of the sample recording
    python docs/page_images.py FOLDER     # those and the others, to look at

It needs what the tests of the page need.
"""

import base64
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests/support")]

from browser_visitor import Visitor, script  # noqa: E402
from service_process import Server, new_file  # noqa: E402

from sidecar.audio.sample_recording import find_sample  # noqa: E402

DESK, SHORT, PHONE = (1280, 776), (1280, 500), (390, 844)
QUALITY = 82
"""Of WebP: text has no visible blur from here on, and a picture 20 to 50 kB."""
KEY = "0123456789abcdef" * 4
OF_DOCS = {"light", "dark", "speaker", "live", "talk"}
LETTER = "This is no sound at all.\n" * 99
NAMES = [f"Weekly meeting of all who build the product, room {room:03}.wav" for room in range(200)]


class Photographer:
    """Takes pictures of what a visitor sees, into ``folder``, or of the docs' states alone."""

    def __init__(self, visitor: Visitor, folder: Path | None) -> None:
        self.visitor, self._folder = visitor, folder

    def wants(self, *names: str) -> bool:
        """Whether one of these states is to be taken."""
        return self._folder is not None or not OF_DOCS.isdisjoint(names)

    def take(self, name: str, part: str = "") -> None:
        """Take the page, or the part of it that this selector finds."""
        if not self.wants(name):
            return
        how: dict[str, object] = {"format": "webp", "quality": QUALITY}
        if part:
            box = self.visitor.js(
                "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", part
            )
            how["clip"] = {key: box[key] for key in ("x", "y", "width", "height")} | {"scale": 1}
        taken = self.visitor.driver.execute_cdp_cmd("Page.captureScreenshot", how)
        path = (self._folder or HERE / "images") / f"page-{name}.webp"
        path.write_bytes(base64.b64decode(taken["data"]))
        print(f"{path}: {path.stat().st_size} bytes")

    def has_a_window_of(self, size: tuple[int, int]) -> None:
        """The page in a window of this size."""
        wanted = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.visitor.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", wanted)
        self.visitor.until(f"innerHeight === {size[1]}", "it has this size")

    @contextmanager
    def dressed(self, theme: str) -> Iterator[None]:
        """The page as somebody has it who likes it dark or light."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.visitor.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        yield
        self.visitor.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def takes_transcript(shows: Photographer, home: Path) -> None:
    """The empty page, a transcript, its speakers, its keys, in all sizes."""
    visitor = shows.visitor
    with Server(home, engine="moonshine", people=1, journal_key=KEY) as server:
        visitor.opens(server)
        visitor.sees(".intake button", "Try a sample")
        shows.take("empty")
        visitor.sees(".intake button", "Try a sample").click()
        visitor.sees("#main .title", "2 speakers")
        (job,) = server.jobs()
        names = [("Speaker_0", "Nagg"), ("Speaker_1", "Nell")]
        named = [{"op": "rename", "speaker": who, "name": name} for who, name in names]
        change = {"operations": named}
        server.client.patch(f"/v1/jobs/{job['id']}/transcript", json=change).raise_for_status()
        visitor.comes_back_until(lambda: "Nagg" in visitor.text(), "they are named")
        visitor.all(".row .said")[2].click()
        visitor.js("document.querySelector('audio').pause(); scrollTo(0, 0)")
        for theme in ("light", "dark"):
            with shows.dressed(theme):
                shows.take(theme)
        for name, size in (("short", SHORT), ("phone", PHONE)):
            shows.has_a_window_of(size)
            shows.take(name)
        visitor.sees(".back").click()
        shows.take("phone-list")
        shows.has_a_window_of(DESK)
        visitor.sees(".job .pick").click()
        visitor.sees(".lane").click()
        visitor.sees("dialog[open] #called")
        shows.take("speaker", "dialog[open]")
        visitor.sees("dialog[open] [aria-label=Close]").click()
        visitor.sees("[aria-label=Keys]").click()
        visitor.sees("dialog[open]", "Another line")
        shows.take("keys")


def takes_microphone(shows: Photographer, home: Path) -> None:
    """A recording, live captions and a conversation."""
    visitor = shows.visitor
    with Server(home, engine="moonshine", voice_engine="scripted") as server:
        visitor.opens(server)
        visitor.records(2)
        shows.take("recorder")
        visitor.sees("#main button", "Discard").click()
        visitor.sees("#sure-recording .danger").click()
        visitor.sees(".intake button", "Live captions").click()
        visitor.sees(".who .name", "Speaker 1")
        visitor.sees(".tail p .quiet", " ")
        shows.take("live")
        visitor.presses(".talking button", "Stop")
        visitor.sees(".title", "only in this browser")
        visitor.sees(".intake button", "Conversation").click()
        visitor.sees(".starting button", "Only type")
        shows.take("talk-start")
        visitor.only_types()
        for text in ("Do you hear me?", "What is the weather like?"):
            visitor.types(text)
            visitor.sees("[data-who=machine] .stages")
        shows.take("talk")


def takes_troubles(shows: Photographer, home: Path) -> None:
    """A file that failed, many recordings and speakers, and the sign-in."""
    visitor = shows.visitor
    with Server(home / "failed") as server:
        visitor.opens(server)
        visitor.sends(new_file(visitor.folder / "letter.wav", LETTER))
        visitor.sees("#main .trouble")
        shows.take("failed")
    with Server(home / "large") as server:
        visitor.opens(server)
        visitor.js(script("large_transcript"), 5, 40, 80)
        visitor.js(script("many_jobs"), NAMES)
        visitor.sends_tone("first.wav", 3)
        visitor.sees("#main .title", "40 speakers")
        visitor.comes_back_until(lambda: len(visitor.all(".job")) == len(NAMES), "all listed")
        shows.take("large")
    with Server(home / "door", token=KEY) as server:
        visitor.opens(server)
        visitor.sees(".door")
        shows.take("sign-in")


STATES: dict[str, tuple[Callable[[Photographer, Path], None], tuple[str, ...]]] = {
    "transcript": (takes_transcript, ("light", "dark", "speaker")),
    "microphone": (takes_microphone, ("live", "talk")),
    "troubles": (takes_troubles, ("failed", "large")),
}
"""What takes pictures, and some of them, by the name of the services' folder."""


def main(folder: Path | None) -> None:
    """Take them all."""
    sample = find_sample()
    assert sample is not None, "moonshine-voice has it"
    with tempfile.TemporaryDirectory() as scratch:
        visitor = Visitor(sample)
        visitor.folder = Path(scratch)
        shows = Photographer(visitor, folder)
        try:
            for name, (take, of) in STATES.items():
                shows.has_a_window_of(DESK)
                if shows.wants(*of):
                    (Path(scratch) / name).mkdir()
                    take(shows, Path(scratch) / name)
        finally:
            visitor.driver.quit()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
