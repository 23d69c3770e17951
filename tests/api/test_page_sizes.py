"""The page with much on it, in little room, and right to left: it can be read and used."""

from browser_visitor import Visitor, script
from service_process import Server, wait_until

HOURS, SPEAKERS, CHARACTERS = 5, 40, 80
JOBS = [
    f"Weekly meeting of all who build the product, room {number:03}.wav" for number in range(200)
]
BOX = "return document.querySelector(arguments[0]).getBoundingClientRect()"
SIDEWAYS = "return document.documentElement.scrollWidth - innerWidth"


def has_a_window_of(visitor: Visitor, width: int, height: int) -> None:
    """The page in a window of this size."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    visitor.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    visitor.until(f"innerHeight === {height}", "it has this size")


def reads_much(visitor: Visitor, server: Server, name: str) -> None:
    """Opens the page, and has a transcript of five hours and 40 speakers with long names."""
    visitor.opens(server)
    visitor.js(script("large_transcript"), HOURS, SPEAKERS, CHARACTERS)
    visitor.sends_tone(name, 3)
    wait_until(lambda: visitor.rows() > HOURS * 500, "all rows")


def test_two_hundred_recordings_are_above_the_buttons_which_stay_in_sight(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.js(script("many_jobs"), JOBS)
    visitor.sends_tone("first.wav", 2)
    listed = "return document.querySelectorAll('.job').length"
    visitor.comes_back_until(lambda: visitor.js(listed) == len(JOBS), "all are listed")
    for width, height in ((1280, 860), (1280, 500), (360, 740)):
        has_a_window_of(visitor, width, height)
        if width < 400:
            visitor.sees(".back").click()
        first, button = (visitor.js(BOX, one) for one in (".job", ".intake .main"))
        assert 0 <= first["top"] < first["bottom"] <= button["top"]
        assert button["bottom"] <= height
        assert visitor.js(SIDEWAYS) <= 0
        assert visitor.findings() == []


def test_end_of_a_long_name_is_in_sight_in_the_list(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.sends_tone(JOBS[7], 2)
    name = visitor.sees(".job[data-state=done] .name", JOBS[7])
    assert name.get_attribute("title") == JOBS[7]
    cut = "return [...arguments[0].children].map((one) => one.scrollWidth > one.clientWidth)"
    assert visitor.js(cut, name) == [True, False]


def test_name_with_an_emoji_where_it_is_cut_is_whole(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.sends_tone("talk 🎤 of Mondays.wav", 1)  # its last 16 units begin within it
    name = visitor.sees(".job[data-state=done] .name", "talk 🎤 of Mondays.wav")
    whole = "return [...arguments[0].children].map((one) => one.textContent.isWellFormed())"
    assert visitor.js(whole, name) == [True, True]


def test_transcript_of_forty_speakers_with_long_names_has_half_of_any_screen(
    visitor: Visitor, server: Server
) -> None:
    reads_much(visitor, server, "ישיבה של היום.wav")
    assert len(visitor.js("return document.querySelector('.lane .name').textContent")) == CHARACTERS
    for width, height in ((1280, 860), (1280, 500), (1000, 700)):
        has_a_window_of(visitor, width, height)
        assert visitor.js(SIDEWAYS) <= 0, "nothing is beside the window"
        visitor.js("scrollTo(0, 3000)")
        assert visitor.js(BOX, ".deck")["bottom"] <= height / 2
        visitor.js("scrollTo(0, 0)")
        assert visitor.js(BOX, ".row")["top"] <= height * 0.75, "the text begins in sight"
    assert visitor.findings() == []
    last = visitor.all(".lane")[SPEAKERS - 1]
    last.click()  # it is scrolled to
    visitor.sees("dialog[open] h2", "39 of the delegation")


def test_lines_and_names_have_the_direction_of_their_words(
    visitor: Visitor, server: Server
) -> None:
    reads_much(visitor, server, "ישיבה של היום.wav")
    said = "return getComputedStyle(document.querySelectorAll('.said')[arguments[0]]).direction"
    assert [visitor.js(said, index) for index in range(3)] == ["ltr", "ltr", "rtl"]
    name = "return getComputedStyle(document.querySelector(arguments[0])).direction"
    assert visitor.js(name, ".job .name") == visitor.js(name, "#main h1") == "rtl"


def test_transcript_has_two_thirds_of_a_screen_of_500_pixels(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 40)
    has_a_window_of(visitor, 1280, 500)
    assert visitor.js(BOX, ".deck")["bottom"] <= 500 / 3
    assert visitor.js(SIDEWAYS) <= 0
    assert visitor.findings() == []


def test_number_of_matches_is_in_the_search_field(visitor: Visitor, server: Server) -> None:
    visitor.reads(server, "talk.wav", 20)
    for phone in (False, True):
        if phone:
            visitor.is_a_phone()
        visitor.one(".search input").clear()
        before = visitor.js(BOX, ".search input")
        visitor.one(".search input").send_keys("a")
        visitor.sees(".found", " of ")
        field = visitor.js(BOX, ".search input")
        assert (field["x"], field["width"]) == (before["x"], before["width"]), "nothing moves"
        edge = visitor.js(
            """const [range, found] = [new Range(), document.querySelector(".found")];
            range.selectNodeContents(found);
            return range.getBoundingClientRect();"""
        )
        assert field["left"] < edge["left"] < edge["right"] < field["right"]


def test_active_line_on_a_phone_is_as_high_as_before(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.js(script("long_transcript"), 40)
    visitor.sends_tone("talk.wav", 3)
    wait_until(lambda: visitor.rows() == 40, "all rows")
    visitor.is_a_phone()
    heights = "return [...document.querySelectorAll('.row')].map((one) => one.offsetHeight)"
    before = visitor.js(heights)
    for index in (2, 3):  # one with a name above it, and one without
        visitor.all(".row .at")[index].click()
        visitor.sees(f".row[data-index='{index}'] > .acts button")
        assert visitor.js(heights) == before
        row, acts = (
            visitor.js(BOX, f".row[data-index='{index}']{more}") for more in ("", " > .acts")
        )
        assert row["top"] <= acts["top"] <= acts["bottom"] <= row["bottom"] + 1, "within its line"
        time = visitor.js(BOX, f".row[data-index='{index}'] .at")
        assert acts["bottom"] <= time["top"] + 2 or acts["top"] >= time["bottom"] - 2
    assert visitor.findings() == []
