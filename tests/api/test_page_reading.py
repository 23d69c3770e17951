"""A transcript on the page: found, selected, exported, by everybody."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser_visitor import ESCAPE, Visitor, script
from moonshine_voice import get_assets_path
from page_actions import downloaded, reads_with_holds
from service_process import Server, wait_until

from sidecar.transcripts.transcript import DOUBTFUL_CONFIDENCE

LONG = 1500


def test_text_for_word_processors_has_a_paragraph_for_each_turn(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 12)
    job = server.jobs()[0]["id"]
    move = {"op": "move", "segments": [1, 7], "speaker": "Speaker_0"}
    server.client.patch(f"/v1/jobs/{job}/transcript", json={"operations": [move]})
    turns_shown = "return document.querySelectorAll('.row.turn').length"
    visitor.comes_back_until(lambda: visitor.js(turns_shown) == 8, "one goes on for three lines")
    spoken = server.client.get(f"/v1/jobs/{job}/transcript").json()["segments"]
    turns = [
        (speaker.replace("_", " "), " ".join(one["text"] for one in some))
        for speaker, some in itertools.groupby(spoken, lambda one: one["speaker"])
    ]
    assert 1 < len(turns) < len(spoken)
    plain = downloaded(visitor, "Text for Word (no times)")
    assert plain == "\n\n".join(f"{speaker}: {text}" for speaker, text in turns) + "\n"
    assert visitor.js("return savedAs") == "talk.txt"
    assert downloaded(visitor, "Text with times").startswith("[00:00:00")
    assert visitor.js("return savedAs") == "talk-times.txt", "none takes the place of the other"
    visitor.js("navigator.clipboard.writeText = async (text) => { window.copied = text; };")
    visitor.sees(".choice [popovertarget]").click()
    visitor.sees("#formats button", "Copy without times").click()
    wait_until(lambda: visitor.js("return window.copied") == plain, "it is copied")


def test_exports_made_by_the_page_itself_are_offered_once_the_transcript_is_loaded(
    visitor: Visitor, server: Server
) -> None:
    reads_with_holds(visitor, server)
    visitor.sends_tone("second.wav", 2)
    visitor.sees(".job[data-state=done] .name", "second.wav")
    offered = "return [...document.querySelectorAll('#formats button')].map((b) => b.textContent)"
    own = {"Copy without times", "Text for Word (no times) .txt"}
    visitor.js("holds.history = true")
    visitor.sees(".job .pick", "second.wav").click()
    visitor.sees("#main h1", "second.wav")
    visitor.sees("#formats button", "Subtitles")
    assert not own & {*visitor.js(offered)}
    visitor.js("holds.history = false")
    visitor.sees(".job .pick", "talk.wav").click()
    visitor.sees("#main h1", "talk.wav")
    visitor.sees(".job .pick", "second.wav").click()
    visitor.sees("#formats button", "Copy without times")
    assert own <= {*visitor.js(offered)}


def test_transcript_read_last_is_shown_again_after_a_reload_until_deleted(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "first.wav", 3)
    visitor.sends_tone("second.wav", 2)
    visitor.sees(".job[data-state=done] .name", "second.wav")
    visitor.driver.refresh()
    visitor.sees("#main h1", "first.wav")
    wait_until(lambda: visitor.rows() == 3, "it is read on")
    visitor.sees("[aria-label='Delete first.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#main", "Choose a recording")
    visitor.driver.refresh()
    visitor.sees("#main", "Choose a recording")


def test_recordings_of_equal_name_are_told_apart_by_upload_time(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sends_tone("alone.wav", 2)
    visitor.sees(".job[data-state=done] .name", "alone.wav")
    assert ", sent" not in visitor.text()
    talk = visitor.tone("talk.wav", 3)  # once: the browser sends no file that was written on since
    for _ in range(2):
        visitor.sends(talk)
    how = """return [...document.querySelectorAll('.job[data-state=done]')].map((job) =>
      [job.querySelector('.name').textContent, job.querySelector('.how').textContent,
       job.querySelector('[aria-label]').ariaLabel]);"""
    wait_until(lambda: len(visitor.js(how)) == 3, "all are done")
    for name, said, label in visitor.js(how):
        again = re.fullmatch(r"0:03, sent (\d\d?:\d\d:\d\d.*)", said)
        assert (again is not None) is (name == "talk.wav"), said
        assert label == (f"Delete {name}, sent {again[1]}" if again else f"Delete {name}")


def test_page_underlines_the_words_that_may_be_wrong(visitor: Visitor, moonshine: Server) -> None:
    samples, rate = soundfile.read(Path(get_assets_path()) / "endgame_nagg_nell.wav", dtype="int16")
    both = np.concatenate([samples[: 8 * rate], samples[8 * rate : 15 * rate][::-1]])
    soundfile.write(visitor.folder / "backwards.wav", both, rate)
    visitor.opens(moonshine)
    visitor.sees(".status", "on this computer")  # the page knows that words cost nothing
    visitor.sends(visitor.folder / "backwards.wav")
    visitor.sees(".doubtful", "Words with a dotted line may be wrong.")
    [job] = moonshine.jobs()
    segments = moonshine.transcript(job["id"])["segments"]
    words = [word for segment in segments for word in segment["words"]]
    doubtful = [word for word in words if word["confidence"] < DOUBTFUL_CONFIDENCE]
    assert 0 < len(doubtful) < len(words)
    visitor.until(f"CSS.highlights.get('doubtful')?.size === {len(doubtful)}", "underlined")


def test_lines_are_selected_by_mouse_and_deselected_by_escape(
    visitor: Visitor, server: Server
) -> None:
    from selenium.webdriver import ActionChains

    visitor.reads(server, "talk.wav", 6)
    visitor.driver.refresh()
    visitor.sees("#main .title", "2 speakers")
    for act in ("Edit", "Select"):  # before anybody points
        visitor.sees(f".row[data-index='0'] > .acts [aria-label='{act} this line']")
    assert visitor.findings() == []
    drawn = "return document.querySelector(`${arguments[0]} path`).getAttribute('d')"
    for count, index in enumerate((1, 3), 1):
        row = visitor.all(".row")[index]
        ActionChains(visitor.driver).move_to_element(row).perform()
        box = f".row[data-index='{index}'] > .acts [aria-label='Select this line']"
        tick, empty = visitor.sees(box), visitor.js(drawn, box)
        ActionChains(visitor.driver).click(tick).perform()
        visitor.sees(".chosen-lines", f"{count} line")
        assert len(visitor.js(drawn, box)) > len(empty), "only now it has a tick"
    visitor.sees(".search input").send_keys("w", ESCAPE)
    visitor.sees(".chosen-lines", "2 lines")
    visitor.js("document.activeElement.blur()")
    visitor.one("body").send_keys(ESCAPE)
    none = "return document.querySelector('.chosen-lines, .row.chosen') === null"
    wait_until(lambda: visitor.js(none), "Escape, wherever the focus is")


@pytest.mark.slow
def test_long_transcript_is_built_in_slices_and_searched_whole(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.js(script("long_transcript"), LONG)
    visitor.sends_tone("hour.wav", 3)
    wait_until(lambda: visitor.rows() == LONG, "all rows")
    chunk = "return getComputedStyle(document.querySelector('.chunk')).contentVisibility"
    assert visitor.js(chunk) == "auto"
    visitor.one(".search input").send_keys("word7 ")
    total = visitor.js(
        "return [...document.querySelectorAll('.said')]"
        ".reduce((sum, one) => sum + one.textContent.split('word7').length - 1, 0)"
    )
    visitor.sees(".found", f"1 of {total}")
    assert visitor.js("return CSS.highlights.get('found').size") < total / 4, "those in sight"


@pytest.mark.slow_except("light")
@pytest.mark.parametrize("looks", ["light", "dark"])
def test_page_has_no_accessibility_findings_in_light_dark_and_on_a_phone(
    looks: str, visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 20)
    while visitor.js("return document.documentElement.dataset.theme") != looks:
        visitor.one(".bar > .bare").click()
    background = visitor.js("return getComputedStyle(document.documentElement).backgroundColor")
    assert (int(background.split("(")[1].split(",")[0]) < 128) is (looks == "dark")
    visitor.one(".search input").send_keys("a")
    assert visitor.findings() == []
    visitor.one("[popovertarget]").click()
    visitor.sees("#formats button", "Subtitles")
    assert visitor.findings() == []
    visitor.is_a_phone()
    assert visitor.findings() == []


def test_bars_on_a_phone_leave_three_quarters_of_the_screen(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "a recording of the whole afternoon.wav", 20)
    visitor.is_a_phone(390, 844)
    top = "return document.querySelector(arguments[0]).getBoundingClientRect().top / innerHeight"
    wide = "return document.querySelector('.tools').scrollWidth - innerWidth"
    assert visitor.js(wide) <= 0, "nothing of the tools is beside the screen"
    assert visitor.js(top, ".row") <= 0.25, "a transcript begins in the first quarter"
    assert visitor.findings() == []
    visitor.sees(".back").click()
    visitor.sees(".job .name")
    assert visitor.js(top, ".jobs") <= 0.3, "and so, under its heading, does the list"
    assert visitor.findings() == []
