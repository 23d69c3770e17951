"""The page in a real browser, on a real service: what a person does with it.

One browser for all.
"""

import datetime
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser_visitor import CONTROL, DOWN, ENTER, ESCAPE, SHIFT, STRANGER, Visitor, script
from moonshine_voice import get_assets_path
from recordings import wav
from service_clock import AHEAD_S, clocked_command, put_ahead
from service_process import Server, StartServer, new_file, wait_until
from test_page import TOKEN, opened
from wheel_recordings import clip_wav

from sidecar.auth.token_issuing import TokenIssuer
from sidecar.transcripts.transcript import DOUBTFUL_CONFIDENCE

KEY = "0123456789abcdef" * 4
PLACE = "const audio = document.querySelector('audio'); return [audio.currentTime, audio.paused]"
LINES = "return [...document.querySelectorAll('.row .said')].map((one) => one.textContent)"
LANES = "return [...document.querySelectorAll('.lane .name')].map((one) => one.textContent)"
LONG = 1500
LEAVES = """
  globalThis.leaves = () => dispatchEvent(new Event("beforeunload", { cancelable: true }));
"""
"""Script by which a page says whether it may be left without a question."""
LONG_S = 1200
"""Of a recording that takes the slow service twenty seconds, and so is said to take some time."""
HOLD = "hold"
"""The file of the slow service that says how far it goes in a recording."""


def kept(home: Path) -> dict[str, object]:
    """Settings with which recordings are kept."""
    return {"keep_jobs": 1, "data_dir": home, "journal_key": KEY, "keep_recordings_mb": 50}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that hears a minute in a second, goes only as far as `goes_to` says, and keeps
    recordings."""
    home = tmp_path_factory.mktemp("slow")
    heard = {"scripted_speed": 60, "scripted_hold": home / HOLD}
    with Server(home, people=1, **heard, **kept(home)) as running:
        yield running


def goes_to(slow: Server, second: int | None) -> None:
    """Has it transcribe recordings to this second, and no further yet; None: to their end."""
    if second is None:
        (slow.home / HOLD).unlink(missing_ok=True)
    else:
        new_file(slow.home / HOLD, str(second))


@pytest.fixture(scope="module")
def moonshine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with an engine that hears words."""
    with Server(tmp_path_factory.mktemp("moonshine"), engine="moonshine") as running:
        yield running


@pytest.fixture(autouse=True)
def _emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test finds another's recordings, nor leaves any; the service has had other tests."""
    names = [one for one in ("server", "slow", "moonshine") if one in request.fixturenames]
    running = [request.getfixturevalue(one) for one in names]
    for one in running:
        one.client.delete("/v1/data").raise_for_status()
    yield
    for one in running:
        goes_to(one, None)
        one.client.delete("/v1/data").raise_for_status()


def test_recording_dropped_on_the_page_is_transcribed_played_and_searched(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees("h1", "Who said what")
    assert visitor.findings() == []
    visitor.drops("talk.wav", visitor.tone("talk.wav", 40).read_bytes())
    visitor.has_rows(40)
    visitor.sees(".job .name", "talk.wav")
    assert visitor.all(".lanes li")[1].text.split()[1] == "Speaker"
    visitor.until("document.querySelector('canvas').clientHeight > 50", "the waveform of two lanes")
    # played from a segment
    visitor.all(".row .said")[5].click()
    place = PLACE
    wait_until(lambda: visitor.js(place)[0] > 5.2, "it plays from there")
    assert visitor.js(place)[0] < 40
    visitor.until("document.querySelector('.row.now').dataset.index != 5", "the row that is heard")
    visitor.sees(".player .round[aria-label=Pause]").click()
    assert visitor.js(place)[1]
    # by keys alone, on the timeline and in the transcript
    track = visitor.one(".track")
    track.send_keys("\ue011")  # Home
    assert visitor.js(place)[0] == 0
    track.send_keys("\ue014")  # right
    assert track.get_attribute("aria-valuetext") == "5 seconds of 40 seconds"
    first = visitor.all(".row .at")[0]
    assert visitor.js("return document.querySelectorAll('.at[tabindex=\"0\"]').length") == 1
    first.send_keys("\ue015\ue015")  # down, down
    assert visitor.js("return document.activeElement.closest('.row').dataset.index") in ("2", "7")
    # searched
    said = visitor.js("return document.querySelectorAll('.said')[7].textContent")
    field = visitor.one(".search input")
    field.send_keys(said)
    visitor.sees(".found", "1 of 1")
    assert visitor.js("return CSS.highlights.get('found')?.size") == 1
    field.send_keys("zzz")
    visitor.sees(".found", "none")
    assert visitor.findings() == []
    # after a reload the page has the file no more
    visitor.driver.refresh()
    visitor.sees(".job .name", "talk.wav").click()
    visitor.sees(".player button", "Choose the file to listen")
    visitor.driver.find_element("id", "listen").send_keys(str(visitor.folder / "talk.wav"))
    visitor.sees(".player .round[aria-label=Play]")


FOCUS = "document.activeElement"


def names(visitor: Visitor) -> list[str]:
    """Who speaks, by the lanes."""
    return list(
        visitor.js(
            "return [...document.querySelectorAll('.lanes .name')].map((one) => one.textContent)"
        )
    )


def writes(visitor: Visitor, index: int, text: str) -> None:
    """Puts a text in the place of a line."""
    line(visitor, index).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(CONTROL, "a", CONTROL, text, ENTER)


def undoes(visitor: Visitor) -> None:
    """Presses Ctrl+Z."""
    from selenium.webdriver import ActionChains

    ActionChains(visitor.driver).key_down(CONTROL).send_keys("z").key_up(CONTROL).perform()


def line(visitor: Visitor, index: int) -> Any:
    """The time of a line, which takes the keys."""
    return visitor.all(".row .at")[index]


def said(visitor: Visitor, index: int) -> str:
    return str(
        visitor.js("return document.querySelectorAll('.said')[arguments[0]].textContent", index)
    )


def test_lines_and_speakers_are_edited_by_keyboard_and_undone(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 12)
    visitor.sees("#said", "talk.wav is done.")  # or that would be said over what comes next
    before = [said(visitor, index) for index in range(12)]
    # a line: corrected, and left as it was
    line(visitor, 3).send_keys("e")
    field = visitor.driver.switch_to.active_element
    assert (field.tag_name, field.get_attribute("value")) == ("textarea", before[3])
    assert visitor.findings() == []
    field.send_keys(CONTROL, "a", CONTROL, "In other words.", ENTER)
    visitor.sees("#said", "Segment corrected.")
    wait_until(lambda: said(visitor, 3) == "In other words.", "it reads so")
    assert visitor.js(f"return {FOCUS}.closest('.row').dataset.index") == "3", "where it was"
    line(visitor, 4).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys("something else", ESCAPE)
    assert said(visitor, 4) == before[4]
    # a speaker: renamed
    visitor.one(".lane").send_keys(ENTER)
    wait_until(lambda: visitor.js(f"return {FOCUS}.id") == "called", "it asks")
    field = visitor.driver.switch_to.active_element
    assert visitor.findings() == []
    field.send_keys("Nell", ENTER)
    visitor.sees("#said", "called Nell")
    wait_until(lambda: names(visitor)[0] == "Nell", "it says so")
    assert visitor.js("return document.querySelector('.row .name').textContent") == "Nell"
    assert visitor.js(f"return {FOCUS}.dataset.speaker") == "Speaker_0", "the dialog gave it back"
    job = server.jobs()[0]["id"]
    text = f"/v1/jobs/{job}/transcript?format=text"
    assert "] Nell: " in server.client.get(text).text
    # two lines: a new speaker's
    line(visitor, 6).send_keys("x", SHIFT, DOWN)
    visitor.sees(".chosen-lines", "2 lines chosen")
    assert "chosen" in line(visitor, 7).get_attribute("aria-label")
    assert visitor.findings() == []
    visitor.one(".chosen-lines .main").send_keys(ENTER)
    visitor.sees("#main .title", "3 speakers")
    assert names(visitor)[2] == "Speaker 2"
    wait_until(lambda: visitor.js(f"return {FOCUS}.closest('.row') !== null"), "back")
    # merged again, into the one with the name
    visitor.all(".lane")[2].send_keys(ENTER)
    visitor.sees("#same").submit()
    visitor.sees("#main .title", "2 speakers")
    visitor.sees("#said", "Speaker 2 was merged into Nell")
    visitor.until(f"{FOCUS}.dataset.speaker === 'Speaker_0'", "the focus is on who has it")
    assert server.jobs()[0]["revision"] == 4
    # all undone, and one done again
    undoes(visitor)
    visitor.sees("#said", "Undone: Speaker 2 was merged into Nell.")
    for _ in range(3):
        undoes(visitor)
    visitor.sees("[aria-label='Undo, 0'][aria-disabled=true]")
    wait_until(lambda: [said(visitor, at) for at in range(12)] == before, "as before")
    assert names(visitor) == ["Speaker 0", "Speaker 1"]
    visitor.sees("#said", "Undone: Segment corrected.")
    visitor.sees("[aria-label='Redo, 4']").click()
    visitor.sees("#said", "Redone: Segment corrected.")
    wait_until(lambda: said(visitor, 3) == "In other words.", "again")


def reads_with_holds(visitor: Visitor, server: Server) -> None:
    """Opens the page with `hold_answers`, and has a transcript of six lines before them."""
    with visitor.before(script("hold_answers")):
        visitor.opens(server)
    visitor.sends_tone("talk.wav", 6)
    visitor.has_rows(6)


@pytest.mark.slow
def test_page_asks_before_it_is_closed_over_an_unsaved_correction(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 4)
    visitor.js(LEAVES)
    line(visitor, 1).send_keys("e")
    assert visitor.js("return leaves()"), "nothing was typed"
    visitor.driver.switch_to.active_element.send_keys(" and more")
    assert not visitor.js("return leaves()")
    visitor.driver.switch_to.active_element.send_keys(ENTER)
    wait_until(lambda: said(visitor, 1).endswith(" and more"), "it is saved")
    assert visitor.js("return leaves()")


@pytest.mark.slow
def test_edit_of_a_transcript_changed_elsewhere_is_refused_and_shows_change_and_typed_text(
    visitor: Visitor, server: Server
) -> None:
    reads_with_holds(visitor, server)
    job = server.jobs()[0]["id"]
    path = f"/v1/jobs/{job}/transcript"

    def elsewhere(name: str) -> None:
        operation = {"op": "rename", "speaker": "Speaker_1", "name": name}
        server.client.patch(path, json={"operations": [operation]}).raise_for_status()

    elsewhere("Hamm")
    wait_until(lambda: names(visitor)[1] == "Hamm", "it is noticed by itself")
    visitor.js("holds.list = true")
    elsewhere("Clov")
    line(visitor, 2).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(" And more.", ENTER)
    visitor.sees(".trouble", "changed meanwhile")
    visitor.sees(".trouble", "make it again")
    assert visitor.findings() == []
    wait_until(lambda: names(visitor)[1] == "Clov", "it is shown as it is")
    field = visitor.driver.switch_to.active_element
    assert field.get_attribute("value").endswith(" And more."), "what was typed is still there"
    field.send_keys(ENTER)
    visitor.sees("#said", "Segment corrected.")
    assert said(visitor, 2).endswith(" And more.")
    assert visitor.all(".trouble") == []


def test_line_corrected_in_another_tab_is_shown_over_the_open_field_and_not_overwritten(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 4)
    path = f"/v1/jobs/{server.jobs()[0]['id']}/transcript"

    def stored() -> str:
        return str(server.client.get(path).json()["segments"][2]["text"])

    line(visitor, 2).send_keys("e")
    field = visitor.driver.switch_to.active_element
    field.send_keys(" Mine.")
    theirs = {"op": "text", "segment": 2, "text": "Theirs."}
    server.client.patch(path, json={"operations": [theirs]}).raise_for_status()
    shown = "return document.querySelectorAll('.row .said:not([hidden])')[2].textContent"
    visitor.comes_back_until(lambda: visitor.js(shown) == "Theirs.", "in sight")
    field = visitor.driver.switch_to.active_element
    field.send_keys(ENTER)
    visitor.sees(".trouble", "changed meanwhile")
    assert stored() == "Theirs."
    assert visitor.findings() == []
    field = visitor.driver.switch_to.active_element
    assert field.get_attribute("value").endswith(" Mine."), "what was typed is still there"
    field.send_keys(ENTER)
    visitor.sees("#said", "Segment corrected.")
    assert stored().endswith(" Mine.")


def test_correction_made_while_speakers_are_told_apart_again_lands_on_no_other_line(
    visitor: Visitor, moonshine: Server
) -> None:
    with visitor.before(script("hold_answers")):
        visitor.opens(moonshine)
    visitor.drops("novel.wav", clip_wav("two_cities"))  # whose sentences four speakers divide
    visitor.sees("#main .title", "1 speaker")
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #number").send_keys("4", ENTER)
    visitor.sees("#main .title", "4 speakers")
    last = visitor.rows() - 1
    visitor.js("holds.diarize = true")
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #number").send_keys("1", ENTER)
    visitor.until("Boolean(held.diarize)", "it is on its way")
    line(visitor, 0).send_keys("x")
    visitor.sees(".chosen-lines .main").click()
    line(visitor, last).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(" And more.", ENTER)
    visitor.js("holds.diarize = false; held.diarize()")
    visitor.sees(".trouble", "changed meanwhile")
    visitor.sees("#main .title", "1 speaker")
    assert visitor.rows() <= last, "the line is a part of another"
    assert visitor.js(LANES) == ["Speaker 0"], "nor is a line another speaker's"
    assert not any(text.endswith(" And more.") for text in visitor.js(LINES))
    field = visitor.driver.switch_to.active_element
    assert field.get_attribute("value").endswith(" And more.")
    field.send_keys(ESCAPE)
    line(visitor, 0).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(" One more.", ENTER)
    wait_until(lambda: said(visitor, 0).endswith(" One more."), "lines can be corrected")


def test_late_answer_of_the_transcript_history_does_not_block_the_next_edits(
    visitor: Visitor, server: Server
) -> None:
    reads_with_holds(visitor, server)
    path = f"/v1/jobs/{server.jobs()[0]['id']}/transcript"
    theirs = {"op": "rename", "speaker": "Speaker_1", "name": "Hamm"}
    visitor.js("holds.history = true")
    server.client.patch(path, json={"operations": [theirs]}).raise_for_status()
    visitor.comes_back_until(lambda: visitor.js("return Boolean(held.history)"), "it is asked")
    visitor.js("holds.list = true")
    visitor.comes_back_until(lambda: visitor.js("return Boolean(held.list)"), "no other look")
    visitor.js("window.late = held.history; holds.history = false")
    writes(visitor, 2, "One.")
    visitor.sees(".trouble", "changed meanwhile")
    visitor.driver.switch_to.active_element.send_keys(ENTER)
    wait_until(lambda: said(visitor, 2) == "One.", "the first")
    before = visitor.js("late(); return given.transcript")
    wait_until(lambda: visitor.js("return given.transcript") > before, "it is there")
    visitor.driver.execute_async_script("setTimeout(arguments[0], 100)")
    writes(visitor, 2, "Two.")
    wait_until(lambda: said(visitor, 2) == "Two.", "the second")
    assert visitor.all(".trouble") == []


def test_edit_whose_answer_is_late_is_not_taken_for_another_persons(
    visitor: Visitor, server: Server
) -> None:
    reads_with_holds(visitor, server)
    writes(visitor, 2, "One.")
    wait_until(lambda: said(visitor, 2) == "One.", "the first")
    visitor.js("holds.edit = true")
    writes(visitor, 3, "Two.")
    wait_until(lambda: visitor.js("return Boolean(held.edit)"), "it is done")
    before = visitor.js("return given.list")
    visitor.comes_back_until(lambda: visitor.js("return given.list") > before + 1, "it looks")
    visitor.js("holds.edit = false; held.edit()")
    wait_until(lambda: said(visitor, 3) == "Two.", "the second")
    undoes(visitor)
    undoes(visitor)
    visitor.sees("[aria-label='Undo, 0']")
    visitor.sees("#said", "Undone: Segment corrected.")
    assert visitor.all(".trouble") == []


def test_silent_event_stream_does_not_hide_the_end_of_a_job(visitor: Visitor, slow: Server) -> None:
    """Nor does an answer that does not come to what else the page would know."""
    with visitor.before(script("silence_events")):
        visitor.opens(slow)
    goes_to(slow, 1)
    visitor.sends_tone("talk.wav", 20)
    visitor.until("window.silent", "nothing comes any more")
    assert visitor.rows() == 1
    goes_to(slow, None)
    visitor.has_rows(20)
    visitor.js("letGo()")


def test_voice_with_too_little_speech_is_refused_and_merged_speakers_are_split_by_voice(
    visitor: Visitor, slow: Server
) -> None:
    visitor.opens(slow)
    visitor.sends_tone("talk.wav", 20)
    visitor.has_rows(20)
    visitor.all(".row .name")[1].click()
    visitor.sees("dialog[open] #called").send_keys("Clov", ENTER)
    visitor.sees(".lane", "Clov").click()
    visitor.sees("dialog[open] button", "Remember this voice").click()
    visitor.sees("dialog[open] .trouble", "too little of its speech")
    # two who were taken for one are told apart by what their lines sound like
    visitor.sees("dialog[open] form:nth-of-type(2) button", "Merge").click()
    visitor.sees("#main .title", "1 speaker")
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] button:not([aria-label]):not(.main)", "Split by voice").click()
    visitor.sees("#said", "is 2 speakers now, by voice.")
    visitor.sees("#main .title", "2 speakers")
    assert visitor.findings() == []


def test_speakers_are_told_apart_again_with_another_number_and_that_is_undone(
    visitor: Visitor, moonshine: Server
) -> None:
    visitor.opens(moonshine)
    visitor.drops("play.wav", clip_wav("endgame_nagg_nell"))
    visitor.sees("#main .title", "2 speakers")
    lines = visitor.js(LINES)
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #called").send_keys("Nagg", ENTER)
    visitor.sees(".lane", "Nagg").click()
    visitor.sees("dialog[open] #number").send_keys("1", ENTER)
    visitor.sees("#said", "1 speaker now.")
    visitor.sees("#main .title", "1 speaker")
    assert visitor.js(LANES) == ["Nagg"]
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #number").send_keys("4", ENTER)
    visitor.sees("#main .title", "4 speakers")
    assert visitor.js("return document.querySelectorAll('.row .at[tabindex=\"0\"]').length") == 1
    for _ in range(3):
        visitor.sees(".steps button").click()
    visitor.sees("#main .title", "2 speakers")
    assert visitor.js(LINES) == lines
    assert visitor.findings() == []


def test_job_that_cannot_be_diarized_again_says_what_to_do(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sends_tone("talk.wav", 4)
    visitor.has_rows(4)
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #number").send_keys("3", ENTER)
    visitor.sees(".trouble", "Submit the recording again")


def test_progress_is_shown_also_after_reload_and_jobs_are_cancelled_and_played(
    visitor: Visitor, slow: Server
) -> None:
    visitor.opens(slow)
    goes_to(slow, 4)
    visitor.sends_tone("long one.wav", LONG_S)
    visitor.sees(".job[data-state=running] .name", "long one.wav")
    visitor.sees(".job[data-state=running] .how", " % of 20:00, about ")
    visitor.sees(".job[data-state=running] .how", " left")
    visitor.sees(".side h2", "In progress")
    visitor.sends_tone("second.wav", 45)
    visitor.sees(".job[data-state=queued] .how", "Next")
    visitor.sends_tone("third.wav", 3)
    visitor.sees(".job[data-state=queued] .name", "third.wav")  # its upload was answered
    visitor.sees(".job[data-state=running] .name", "long one.wav").click()
    wait_until(lambda: visitor.rows() == 4, "what is known by now")
    goes_to(slow, 6)
    wait_until(lambda: visitor.rows() == 6, "it grows")
    visitor.driver.refresh()
    visitor.sees(".job[data-state=running] .name", "long one.wav").click()
    wait_until(lambda: visitor.rows() == 6, "it is there again")
    goes_to(slow, 8)
    wait_until(lambda: visitor.rows() == 8, "and grows")
    numbers = "return [...document.querySelectorAll('.row')].map((one) => one.dataset.index)"
    found = visitor.js(numbers)
    assert found == [str(index) for index in range(len(found))]
    assert visitor.findings() == []
    visitor.sees("[aria-label='Cancel third.wav']").click()
    visitor.sees("#said", "third.wav was cancelled.")
    visitor.sees("[aria-label='Cancel long one.wav']").click()
    visitor.sees("#said", "long one.wav was cancelled.")
    goes_to(slow, None)
    visitor.sees(".job .name", "second.wav").click()
    visitor.has_rows(45)
    # played from what the service kept: no more of it than is heard
    visitor.sees(".player .round[aria-label=Play]")
    visitor.all(".row .said")[40].click()
    wait_until(lambda: visitor.js(PLACE)[0] > 40.2, "it plays from there")
    visitor.sees(".player .round[aria-label=Pause]").click()


@pytest.mark.slow
def test_transcript_being_read_is_not_expired_and_an_expired_one_can_be_read_and_corrected(
    visitor: Visitor, start_server: StartServer
) -> None:
    ahead_s, rest_s = 61, 5  # the rest goes by as it does, for the page, too
    keeps_s = 3 * ahead_s + rest_s
    command = clocked_command(visitor.folder, ahead_s)
    server = start_server(command=command, job_retention=f"{keeps_s}s")

    def left_s() -> dict[str, float]:
        return {one["id"]: one["expires_in"] for one in server.jobs()}

    def goes_ahead(times: int) -> None:
        for _ in range(times):
            before = left_s()
            put_ahead(server)
            wait_until(lambda before=before: far_from(before), "time has gone by")

    def far_from(before: dict[str, float]) -> bool:
        now = left_s()
        return any(abs(now.get(one, 0.0) - was) > ahead_s / 2 for one, was in before.items())

    def does_nothing() -> None:
        """The person, for longer than transcripts are kept; what they did before is over."""
        visitor.driver.execute_async_script(
            """const [ms, done] = arguments, later = requestAnimationFrame;
            later(() => later(() => done(pass(ms))));""",
            1000 * keeps_s,
        )

    with visitor.before(script("passing_time")):
        visitor.reads(server, "read.wav", 6)
    (read,) = left_s()
    # who is in the middle of a correction has the transcript kept, although nothing else happens
    line(visitor, 3).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(" half a")
    does_nothing()
    other = server.done((visitor.folder / "read.wav").read_bytes())
    goes_ahead(2)
    visitor.comes_back_until(lambda: left_s()[read] > 2 * ahead_s, "it is kept")
    goes_ahead(1)
    wait_until(lambda: other not in left_s(), "what nobody reads goes")
    assert set(left_s()) == {read}
    field = visitor.driver.switch_to.active_element
    assert field.get_attribute("value").endswith(" half a")
    visitor.sees(".storing", "3 minutes 8 seconds after it was last read or edited")
    assert visitor.findings() == []
    # it is said before it goes, and can be put off
    field.send_keys(ESCAPE)
    does_nothing()
    goes_ahead(1)
    visitor.sees(".expiry button", "Keep it longer")
    offered = visitor.one(".expiry").text
    assert re.search(r"about to delete this transcript\.\s+[01]:\d\d\s", offered)
    assert "Download it" in offered
    visitor.one(".expiry button").click()
    gone = "return document.querySelector('.expiry') === null"
    wait_until(lambda: visitor.js(gone), "it was put off")
    assert set(left_s()) == {read}
    # the service deletes it, and it stands as it stood
    does_nothing()
    goes_ahead(3)
    wait_until(lambda: not left_s(), "its time is over")
    visitor.sees("#main .notice", "does not have this transcript any more")
    visitor.sees("#main .notice", "stored in this browser")
    visitor.sees(".side h2", "Only in this browser")
    assert visitor.rows() == 6
    assert visitor.findings() == []
    writes(visitor, 3, "All of it.")
    visitor.sees("#said", "in this browser only")
    wait_until(lambda: said(visitor, 3) == "All of it.", "it is corrected")
    speaker = visitor.sees(".lane .name").text
    visitor.sees(".lane").click()
    visitor.sees("dialog[open]", "only names and lines can be changed")
    assert visitor.all("#same") == []
    visitor.sees("#called").send_keys("Nell", ENTER)
    visitor.sees("#said", f"{speaker} is called Nell now, in this browser only.")
    assert "Nell" in names(visitor)
    # also for who comes back
    visitor.driver.refresh()
    visitor.sees(".job .name", "read.wav").click()
    wait_until(lambda: visitor.rows() == 6, "the copy")
    assert said(visitor, 3) == "All of it."
    assert names(visitor)[0] == "Nell"
    assert downloaded(visitor, "Text for Word").startswith("Nell: ")
    # and one switch deletes all of them, but not under the eyes of who reads
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open]", "The service no longer has 2 transcripts of them.")
    assert visitor.findings() == []
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#main .notice", "in this tab only")
    visitor.sees(".storing", "No copies are stored")
    visitor.driver.refresh()
    visitor.sees("h1", "Who said what")
    assert "read.wav" not in visitor.text()


def downloaded(visitor: Visitor, label: str) -> str:
    """What a button of the menu of downloads would save, and nothing is saved."""
    visitor.js(
        """window.saved = null;
        URL.createObjectURL = (blob) => (blob.text().then((text) => (window.saved = text)), "");
        HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };"""
    )
    visitor.sees(".choice [popovertarget]").click()
    visitor.sees("#formats button", label).click()
    wait_until(lambda: visitor.js("return saved") is not None, f"the file: {label}")
    return str(visitor.js("return saved"))


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


def worked_out(visitor: Visitor, module: str, expression: str, given: object) -> Any:
    """The value of an expression over what a module of the page exports (`the`) and ``given``."""
    return visitor.driver.execute_async_script(
        f"""const [given, done] = arguments;
        const app = document.querySelector("script[type=module]").src;
        import(app.replace("app.js", "{module}")).then((the) => done({expression})).catch(done);""",
        given,
    )


def test_progress_remaining_time_and_queue_position_of_a_job_are_put_in_words(
    visitor: Visitor, server: Server
) -> None:
    def said(**job: object) -> str:
        return str(worked_out(visitor, "words.js", "the.stateOf(given)", job))

    def runs(total: float | None, fraction: float | None, left: float) -> str:
        progress = {"fraction": fraction, "audio_seconds_done": 0, "audio_seconds_total": total}
        return said(state="running", progress=progress, estimated_remaining_seconds=left)

    visitor.opens(server)
    assert runs(28, 0.5, 3) == "50 % of 0:28, a few seconds left"
    assert runs(395, 0.25, 80) == "25 % of 6:35, about 80 seconds left"
    assert runs(None, None, 120) == "Starting", "how long it is nobody knows yet"
    assert said(state="queued", position=0, estimated_wait_seconds=20) == (
        "Next, starts in about 20 seconds"
    )
    assert said(state="queued", position=2, estimated_wait_seconds=3) == (
        "2 recordings before it, starts in a few seconds"
    )


def test_durations_from_two_days_on_are_in_days(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    lengths_s = [0, 61, 3600, 2 * 86_400 - 60, 2 * 86_400, 30 * 86_400, 2 * 86_400 + 3600]
    said = worked_out(visitor, "words.js", "given.map(the.spoken)", lengths_s)
    assert said[:3] == ["0 seconds", "1 minute 1 second", "1 hour"]
    assert said[3:] == ["47 hours 59 minutes", "2 days", "30 days", "2 days 1 hour"]


COPIES_AT_MOST = 200


@pytest.mark.slow
def test_browser_keeps_the_newest_200_transcript_copies_and_deletes_those_when_switched_off(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server()
    voice = visitor.tone("one.wav", 2).read_bytes()

    def copies(owner: str, count: int, at: int) -> list[list[str]]:
        made = visitor.driver.execute_async_script(script("copies"), owner, count, at)
        return list(made)

    with visitor.before(script("count_transcripts")):
        visitor.opens(server)
        owner = server.client.get("/v1/page/about").json()["owner"]
        old, late = 1_000_000, 9_000_000_000_000
        copies("somebody else", 3, old)
        copies(owner, COPIES_AT_MOST, old)
        visitor.opens(server)
        jobs = [server.submit(voice) for _ in range(3)]
        for job in jobs:
            server.wait_state(job, "done")

        def here() -> set[str]:
            return {name for whose, name in copies("", 0, 0) if whose == owner}

        wait_until(lambda: set(jobs) <= here(), "the newest are copied")
        assert len(here()) == COPIES_AT_MOST, "and as many of the oldest have gone"
        asked = visitor.js("return window.asked")
        assert len(asked) == len(jobs)
        assert all("renew=false" in address for address in asked)
        # there is room for none of those that are older than all that are here
        copies(owner, COPIES_AT_MOST, late)
        jobs = [server.submit(voice) for _ in range(2)]
        for job in jobs:
            server.wait_state(job, "done")
        visitor.opens(server)
        visitor.sees(".side h2", "Only in this browser")
        looks = "return window.looked"
        wait_until(lambda: visitor.js(looks) > 2, "it has looked again and again")
        assert visitor.js("return window.asked") == []
        visitor.sees(".storing input").click()
        visitor.sees("dialog[open] .danger").click()
        visitor.sees(".storing", "No copies are stored")
        wait_until(lambda: here() == set(), "all of them have gone")
        assert len(copies("", 0, 0)) == 3, "those of others stay"


def test_corrections_of_a_deleted_transcript_in_two_tabs_are_both_kept(
    visitor: Visitor, server: Server
) -> None:
    visitor.has_a_copy_alone(server)
    first = visitor.driver.current_window_handle

    def shows() -> None:
        visitor.sees(".job .pick", "two.wav").click()
        visitor.has_rows(4)

    def corrects(index: int, text: str) -> None:
        writes(visitor, index, text)
        visitor.sees("#said", "in this browser only")
        wait_until(lambda: said(visitor, index) == text, "it reads so")

    visitor.driver.switch_to.new_window("tab")
    visitor.opens(server)
    shows()
    corrects(1, "Second.")
    second = visitor.driver.current_window_handle
    visitor.driver.switch_to.window(first)
    corrects(2, "First.")
    assert said(visitor, 1) == "Second."
    visitor.driver.switch_to.window(second)
    writes(visitor, 2, "Not seen.")
    visitor.sees(".trouble", "changed meanwhile")
    assert said(visitor, 2) == "First."
    visitor.driver.close()
    visitor.driver.switch_to.window(first)
    visitor.opens(server)
    shows()
    assert visitor.js(LINES)[1:3] == ["Second.", "First."]


def test_expired_job_that_was_never_opened_is_shown_from_its_copy(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(command=clocked_command(visitor.folder), job_retention="1h")
    with visitor.before(script("passing_time")):
        visitor.reads(server, "first.wav", 5)
    visitor.sends_tone("second.wav", 7)
    visitor.comes_back_until(lambda: visitor.copies() == 2, "there are copies")
    assert {one["state"] for one in server.jobs()} == {"done"}, "the service has them, too"
    visitor.js("pass(arguments[0])", 1000 * AHEAD_S)
    put_ahead(server)
    headings = "return [...document.querySelectorAll('.side h2')].map((one) => one.textContent)"
    gone = ["Only in this browser"]
    visitor.comes_back_until(lambda: visitor.js(headings) == gone, "both gone")
    visitor.sees(".job .name", "second.wav").click()
    wait_until(lambda: visitor.rows() == 7, "it was never opened before")
    visitor.sees("#main .notice", "stored in this browser")
    visitor.sees("[aria-label='Delete second.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#said", "second.wav was deleted.")
    names = [one.text for one in visitor.all(".job .name")]
    assert names == ["first.wav"]


def test_transcript_copies_of_one_owner_in_the_browser_are_not_shown_to_another(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    tokens = {name: issuer.create(name)[0] for name in ("anna", "berta")}
    server = start_server(token_keys=issuer.keys.public)

    def signs_in(name: str) -> None:
        visitor.opens(server)
        visitor.js("sessionStorage.setItem('vibevoice-token', arguments[0])", tokens[name])
        visitor.driver.refresh()
        visitor.sees(".page[data-ready=yes]")

    signs_in("anna")
    visitor.sees(".intake")
    visitor.sends_tone("anna's own.wav", 3)
    visitor.sees("#main .title", "2 speakers")
    visitor.comes_back_until(lambda: visitor.copies() == 1, "there is a copy")
    signs_in("berta")
    visitor.sends_tone("berta's own.wav", 3)
    visitor.sees("#main .title", "2 speakers")
    visitor.comes_back_until(lambda: visitor.copies() == 2, "and another's")
    found = [one.text for one in visitor.all(".side h2")]
    assert found == ["Done"], "none is only in this browser"
    assert "anna" not in visitor.text()
    # who switches them off is asked, and deletes none of another's
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open] [type=submit]", "Keep it").click()
    assert visitor.one(".storing input").is_selected()
    assert visitor.copies() == 2
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees(".storing", "No copies are stored")
    wait_until(lambda: visitor.copies() == 1, "only hers is gone")
    signs_in("anna")
    visitor.sees(".storing", "Copies stay in this browser")
    assert visitor.copies() == 1


def test_job_cancelled_in_one_tab_disappears_from_the_other(visitor: Visitor, slow: Server) -> None:
    visitor.opens(slow)
    goes_to(slow, 1)
    visitor.sends_tone("shared.wav", 3)
    visitor.sees(".job[data-state=running] .name", "shared.wav")
    first = visitor.driver.current_window_handle
    visitor.driver.switch_to.new_window("tab")
    visitor.opens(slow)
    visitor.sees(".job[data-state=running] .name", "shared.wav")
    visitor.one("[aria-label='Cancel shared.wav']").click()
    visitor.sees("h1", "Who said what")
    visitor.driver.switch_to.window(first)
    wait_until(lambda: "shared.wav" not in visitor.text(), "gone there, too")


@pytest.mark.slow
def test_restarted_service_is_waited_for_and_gets_the_recording_again(visitor: Visitor) -> None:
    hold = new_file(visitor.folder / "hold", "4")  # the job is not done when its service ends
    with Server(visitor.folder / "before", scripted_hold=hold) as server:
        port = server.port
        visitor.opens(server)
        visitor.sends_tone("kept.wav", 60)
        visitor.sees(".job[data-state=running]")
        wait_until(lambda: visitor.rows() > 2, "it grows")
    visitor.sees(".banner", "does not answer")
    with Server(visitor.folder / "after", port=port) as server:
        visitor.sees("#main .title", "2 speakers")
        wait_until(lambda: visitor.rows() == 60, "all of it")
        assert len(server.jobs()) == 1
        assert "does not answer" not in visitor.text()


@pytest.mark.slow
def test_recording_that_is_uploaded_again_after_a_restart_is_not_given_up_meanwhile(
    visitor: Visitor,
) -> None:
    hold = new_file(visitor.folder / "hold", "4")
    with Server(visitor.folder / "before", scripted_hold=hold) as server:
        port = server.port
        with visitor.before(script("hold_answers")):
            visitor.opens(server)
        visitor.sends_tone("kept.wav", 6)
        visitor.sees(".job[data-state=running]")
        visitor.js("holds.submit = true")
    with Server(visitor.folder / "after", port=port) as server:
        visitor.until("Boolean(held.submit)", "it is uploaded again")
        visitor.js("window.looks = given.list ?? 0")
        visitor.until("given.list >= looks + 2", "the page has looked since")
        visitor.js("holds.submit = false; held.submit()")
        visitor.has_rows(6)
        assert len(server.jobs()) == 1


@pytest.mark.slow
def test_refused_job_list_shows_its_error_and_not_that_the_service_does_not_answer(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees("h1", "Who said what")
    visitor.js(script("refuse_jobs"))
    visitor.sees(".banner", "The database does not work. Wait.")
    assert "does not answer" not in visitor.text()
    visitor.js("window.fetch = window.usual")
    wait_until(lambda: "database" not in visitor.text(), "it goes on")


def test_link_signs_one_tab_in_once_and_leaves_no_token_in_the_address(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token=TOKEN, **kept(visitor.folder))
    visitor.opens(server)
    visitor.sees(".door", "vibevoice-asr open")
    assert visitor.findings() == []
    link = opened(server, TOKEN)
    visitor.driver.get("about:blank")
    visitor.driver.get(link)
    visitor.sees("h1", "Who said what")
    assert visitor.driver.current_url == f"http://127.0.0.1:{server.port}/"
    assert visitor.js("return document.cookie") == ""
    visitor.sends_tone("talk.wav", 3)
    visitor.sees("#main .title", "2 speakers")
    visitor.driver.refresh()
    visitor.sees(".job .name", "talk.wav").click()
    visitor.sees(".player button", "Listen to the recording").click()
    visitor.sees(".player .round[aria-label=Play]")
    visitor.until("document.querySelector('audio').duration === 3", "it is fetched with the token")
    assert TOKEN not in visitor.js("return performance.getEntries().map((one) => one.name).join()")
    visitor.driver.switch_to.new_window("tab")
    visitor.driver.get(link)
    visitor.sees(".trouble", "is not valid any more")
    field = visitor.sees("#token")
    field.send_keys(TOKEN)
    field.submit()
    visitor.sees(".job .name")
    visitor.js(script("know_sockets"))
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".title", "Listening")
    assert visitor.js("return sockets[0].url") == f"ws://127.0.0.1:{server.port}/v1/live"
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")


@pytest.mark.parametrize(
    ("host", "order"),
    [(STRANGER, ["H1", "FORM", "P", "P"]), ("localhost", ["H1", "P", "FORM", "P"])],
)
def test_sign_in_page_has_the_token_form_first_unless_opened_at_localhost(
    host: str, order: list[str], visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token="correct-horse-battery-staple", allowed_hosts=STRANGER)
    visitor.driver.get(f"http://{host}:{server.port}/")
    visitor.sees(".door", "vibevoice-asr open")
    tags = "return [...document.querySelector('.door').children].map((one) => one.tagName)"
    assert visitor.js(tags) == order


def test_sign_in_says_over_the_field_why_a_token_is_not_accepted(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    _, issue = issuer.create("anna")
    token = issuer.create("ben")[0]
    revoked, revoked_issue = issuer.create("clov")
    issuer.revoke(revoked_issue.token_id)
    past = TokenIssuer(issuer.folder, lambda: issue.issued - datetime.timedelta(days=9))
    expired, _ = past.create("anna", lasts_s=60)
    server = start_server(token_keys=issuer.keys.public)
    visitor.opens(server)
    for given, why in (
        (expired, "has expired"),
        (revoked, "was revoked"),
        (token[:-9], "mistyped"),
        ("naïve", "Copy it again"),
    ):
        field = visitor.sees(".door #token")
        field.clear()
        field.send_keys(given)
        field.submit()
        visitor.sees(".door form > :first-child .trouble", why)
        assert visitor.js("return sessionStorage.getItem('vibevoice-token')") is None
    assert visitor.findings() == []
    field = visitor.sees(".door #token")
    field.clear()
    field.send_keys(f"Bearer {token}")
    field.submit()
    visitor.sees("h1", "Who said what")


@pytest.mark.slow
def test_link_of_a_named_owner_signs_in_only_once_the_person_agrees(
    visitor: Visitor, start_server: StartServer
) -> None:
    issuer = TokenIssuer(visitor.folder / "tokens")
    token, _ = issuer.create("mallory")
    server = start_server(token_keys=issuer.keys.public)
    links = [opened(server, token) for _ in range(2)]
    kept_token = "return sessionStorage.getItem('vibevoice-token')"
    visitor.driver.get(links[0])
    visitor.sees(".door", "signs you in as mallory")
    assert visitor.findings() == []
    assert visitor.js(kept_token) is None
    visitor.sees(".door button", "Do not sign in").click()
    visitor.sees(".door", "Sign in")
    assert visitor.js(kept_token) is None
    visitor.driver.get("about:blank")
    visitor.driver.get(links[1])
    visitor.sees(".door button", "Sign in as mallory").click()
    visitor.sees("h1", "Who said what")
    visitor.sees(".bar .status").click()
    visitor.sees("dialog .facts", "Signed in asmallory")


def test_file_without_audio_is_shown_as_failed_with_the_reason_and_can_be_removed(
    visitor: Visitor, server: Server
) -> None:
    letter = new_file(visitor.folder / "letter.wav", "This is no sound at all.\n" * 99)
    visitor.opens(server)
    visitor.sends(letter)
    visitor.sees(".job[data-state=failed] .how", "not audio in a supported format")
    visitor.sees(".job[data-state=failed] .how", "Send wav, flac")
    assert visitor.all(".again") == [], "it would fail again"
    assert [one.text for one in visitor.all(".side h2")] == ["Failed"], "and nothing is in progress"
    assert visitor.findings() == []
    visitor.one("[aria-label='Remove letter.wav from the list']").click()
    visitor.sees("h1", "Who said what")


def test_file_that_the_browser_cannot_read_says_so_and_stops_no_other(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(
        """const send = fetch;
        const opened = new Promise((resolve) => (globalThis.open = resolve));
        globalThis.fetch = async (url, how) => {
          if (how?.method === "POST") await opened;
          return send(url, how);
        };"""
    ):
        visitor.opens(server)
    others = [visitor.tone(f"{number}.wav", 2) for number in range(2)]
    visitor.sends(*others, path := visitor.tone("moved.wav", 2))
    visitor.sees(".job[data-state=waiting] .name", "moved.wav")
    path.unlink()
    visitor.js("open()")
    visitor.sees(".job[data-state=failed]", "The browser cannot read this file")
    wait_until(lambda: len(visitor.all(".job[data-state=done]")) == 2, "the others are done")
    visitor.sees("[aria-label='Remove moved.wav from the list']").click()
    # among those of a folder that is dropped
    names = visitor.driver.execute_async_script(script("folder_with_unreadable_file"))
    assert names == [["a.wav", "b.wav"], ["bad.wav", "closed"]]


@pytest.mark.slow
@pytest.mark.parametrize("pulled", [False, True])
def test_microphone_is_recorded_and_transcribed_also_if_it_is_pulled_out(
    pulled: bool, visitor: Visitor, server: Server
) -> None:
    with visitor.before(
        LEAVES
        + """const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        const hear = async (wish) => (globalThis.heard = await open(wish));
        navigator.mediaDevices.getUserMedia = hear;"""
    ):
        visitor.opens(server)
    assert visitor.js("return leaves()"), "nothing would be lost"
    visitor.sees(".intake button", "Record").click()
    time_of = "return document.querySelector('.recording .time').textContent"
    visitor.sees(".recording .time", ":")
    wait_until(lambda: visitor.js(time_of) > "0:00", "a second")
    assert not visitor.js("return leaves()"), "the browser asks first"
    if pulled:
        visitor.js("heard.getTracks()[0].stop()")
    else:
        visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "speaker")  # one or two: each second has another
    visitor.sees(".job .name", "Recording 2")
    assert visitor.all(".intake .recording") == []
    assert visitor.js("return leaves()")


def test_discarded_recording_is_asked_about_and_not_sent(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.sees(".intake button", "Record").click()
    visitor.sees(".intake [aria-label='Discard this recording']").click()
    visitor.sees("#sure-recording button", "Keep it").click()
    visitor.has_recorded(1)
    visitor.sees(".intake [aria-label='Discard this recording']").click()
    visitor.sees("#sure-recording .danger").click()
    visitor.sees(".intake button", "Record")
    visitor.sends_tone("talk.wav", 2)
    visitor.sees(".job[data-state=done] .name", "talk.wav")
    assert len(server.jobs()) == 1


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


def test_page_shows_where_the_engine_runs_and_its_language_and_warns_of_another_language(
    visitor: Visitor, moonshine: Server, start_server: StartServer
) -> None:
    visitor.opens(moonshine)
    visitor.sees(".status", "English, on this computer")
    visitor.sees(".drop", "an interview, in English.")
    visitor.sends_tone("clicks.wav", 2)
    visitor.sees("#main", "No speech was found")
    visitor.sees("#main .title", "0:02 · English")
    samples, rate = soundfile.read(Path(get_assets_path()) / "endgame_nagg_nell.wav", dtype="int16")
    soundfile.write(visitor.folder / "backwards.wav", samples[: 15 * rate][::-1], rate)
    visitor.sends(visitor.folder / "backwards.wav")
    visitor.sees(".job[data-state=done] .name", "backwards.wav").click()
    visitor.sees("#main .notice", "does not seem to be English")
    assert "English" not in visitor.sees("#main .title", "moonshine").text
    visitor.opens(start_server(engine="upstream", upstream="http://127.0.0.1:9"))
    visitor.sees(".status", "Sent to another server")


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


def test_page_offers_steering_options_only_if_the_engine_takes_them(
    visitor: Visitor, start_server: StartServer
) -> None:
    for server, shown in (
        (start_server(), ["channel"]),
        (
            start_server(engine="upstream", upstream="http://127.0.0.1:9"),
            ["speak", "Names", "channel"],
        ),
    ):
        visitor.opens(server)
        visitor.sees(".intake .quiet")  # what the engine can do is known
        engine = server.client.get("/v1/page/about").json()["engine"]
        assert engine["steerable"] is ("Names" in shown)
        labels = visitor.all(".fields label")
        found = " ".join(str(one.get_attribute("textContent")) for one in labels)
        assert [word for word in ("speak", "Names", "channel") if word in found] == shown


def call() -> bytes:
    """A wav of two channels."""
    left, right = bytes([148, 108] * 24_000), bytes([188, 188, 68, 68] * 12_000)
    both = bytes(itertools.chain(*zip(left, right, strict=True)))
    return wav(both, channels=2, rate=16_000, bits=8)


def test_channels_of_a_call_are_separated_if_the_option_is_on(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees(".options summary", "Options").click()
    visitor.sees(".options label.check", "channel").click()
    visitor.drops("call.wav", call())
    visitor.sees("#main .title", "4 speakers")
    names = "Left 1", "Left 2", "Right 1", "Right 2"  # two speakers in turn on each
    wait_until(lambda: all(name in visitor.text() for name in names), "names of channels")


def test_speakers_of_separate_channels_are_not_offered_to_be_told_apart_again(
    visitor: Visitor, server: Server
) -> None:
    for recording, speakers, offered in (
        (call(), "4 speakers", False),
        (wav(b"\x10\x20" * 64_000), "2 speakers", True),  # one channel is not separated
    ):
        server.done(recording, channels="separate")  # by another client
        visitor.opens(server)
        visitor.sees(".job .pick").click()  # the newest
        visitor.sees("#main .title", speakers)
        visitor.sees(".lane").click()
        visitor.sees("dialog[open] #called")
        assert bool(visitor.all("dialog[open] #number")) is offered


GONE = json.dumps(
    {"type": "error", "code": "live_gone", "message": "It is gone.", "hint": "Try later."}
)
LIVE = "Live captions"


def goes_live(visitor: Visitor, server: Server) -> None:
    """Opens the page, whose `sockets` are known, and has captions."""
    visitor.opens(server)
    visitor.js(script("know_sockets"))
    visitor.sees(".intake button", LIVE).click()


def captions(visitor: Visitor, more: int = 1) -> int:
    """So many lines more; how many there are."""
    rows = visitor.rows()
    wait_until(lambda: visitor.rows() >= rows + more, f"captions\n{visitor.text()}")
    return visitor.rows()


@pytest.mark.slow
def test_live_captions_pause_reconnect_and_are_transcribed_again(
    visitor: Visitor, server: Server
) -> None:
    goes_live(visitor, server)
    visitor.sees(".talking [aria-label=Loudness]")
    visitor.sees(".tail p", "w")
    visitor.sees(".row .said", "w")
    visitor.sees("[role=log][aria-live=polite] p", "Speaker 0: w")
    visitor.until("document.querySelector('meter').value > 0", "it is as loud as something")
    assert visitor.findings() == []
    visitor.js("sockets[0].close(4000)")
    captions(visitor, 2)
    assert visitor.js("return sockets.length") == 2, "it came again by itself"
    visitor.presses(".talking button", "Pause")
    visitor.sees(".title", "Paused")
    visitor.sees("#said", "Paused")
    visitor.sees(".tail", "")
    at = visitor.js("return document.querySelector('.talking .time').textContent")
    visitor.js("window.elsewhere = new AudioContext()")
    visitor.until("elsewhere.currentTime > 1.2", "more than a second of sound has gone by")
    assert visitor.js("return document.querySelector('.talking .time').textContent") == at
    visitor.presses(".talking button", "Resume")
    captions(visitor)
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    assert visitor.findings() == []
    visitor.sees(".job .name", "Live 2")
    visitor.sees(".player .round[aria-label=Play]").click()
    wait_until(lambda: visitor.js(PLACE)[0] > 0.3, "its own sound is heard")
    visitor.sees(".head button", "Transcribe it again").click()
    visitor.sees("#main .title", "2 speakers · scripted")
    job = server.jobs()[0]
    assert job["duration"] == pytest.approx(
        visitor.js("return document.querySelector('audio').duration")
    )
    visitor.sees(".job .pick", "only in this browser").click()
    visitor.sees("[aria-label^='Discard Live']").click()
    visitor.sees("#sure-talk .danger").click()
    wait_until(lambda: "only in this browser" not in visitor.text(), "it is gone")


def test_silent_microphone_is_reported_in_captions_and_in_a_recording(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(script("silent_microphone")), visitor.before(script("passing_time")):
        visitor.opens(server)
    visitor.sees(".intake button", LIVE).click()
    visitor.sees("#main .notice[role=status]", "No audio from this microphone")
    assert visitor.findings() == []
    visitor.presses(".talking button", "Stop")
    title = visitor.sees(".title", "only in this browser").text
    assert "speaker" not in title, "nobody spoke"
    visitor.sees(".intake button", "Record").click()
    visitor.sees(".recording meter[value]")  # it listens
    visitor.js("pass(3001)")
    visitor.sees(".intake .notice[role=status]", "No audio from this microphone")


def test_kept_captions_are_a_job_that_can_be_played_and_whose_speakers_can_be_named(
    visitor: Visitor, slow: Server
) -> None:
    visitor.opens(slow)
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".talking label", "Keep as a transcript").click()
    visitor.sees(".row .said", "w")
    visitor.presses(".talking button", "Stop")
    visitor.sees("#main .title", "scripted")  # as it was captioned: nothing is heard again
    (job,) = slow.jobs()
    assert job["state"] == "done"
    visitor.sees(".job .name", "Live 2")
    assert "only in this browser" not in visitor.text()
    visitor.sees(".player .round[aria-label=Play]").click()
    wait_until(lambda: visitor.js(PLACE)[0] > 0.1, "its sound is at hand")
    visitor.all(".row .name")[0].click()
    visitor.sees("dialog[open] #called").send_keys("Clov", ENTER)
    visitor.sees(".lane", "Clov")
    assert visitor.findings() == []


@pytest.mark.slow
def test_live_captions_ended_by_an_error_leave_a_whole_recording_that_can_be_transcribed(
    visitor: Visitor, server: Server
) -> None:
    def recorded_s() -> int:
        minutes, seconds = visitor.sees(".talking .time").text.split(":")
        return 60 * int(minutes) + int(seconds)

    goes_live(visitor, server)
    captions(visitor)
    before = wait_until(recorded_s, "a second is recorded")
    visitor.js("sockets[0].onmessage({data: arguments[0]})", GONE)
    visitor.sees(".trouble", "Try later.")
    assert recorded_s() >= before, "what was captioned is kept"
    visitor.sees(".title", "The audio is recorded")
    visitor.is_a_phone()
    assert visitor.findings() == []
    at = recorded_s()
    wait_until(lambda: recorded_s() > at, "it is recorded")
    at = recorded_s()
    visitor.presses(".talking button", "Stop")
    visitor.sees(".head button", "Transcribe it again").click()
    visitor.sees("#main .title", "2 speakers · scripted")
    assert server.jobs()[0]["duration"] >= at


def test_overload_notice_ends_with_the_captions_and_their_download_menu_fits_a_phone(
    visitor: Visitor, server: Server
) -> None:
    goes_live(visitor, server)
    visitor.sees(".tail p", "w")
    visitor.js(script("overloaded"), "partials_late", "The service is overloaded.")
    visitor.sees("#main .notice", "overloaded")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    visitor.sees(".row .said", "w")
    assert "overloaded" not in visitor.js("return document.querySelector('#main').innerText")
    visitor.is_a_phone()
    visitor.sees(".choice [popovertarget]").click()
    boxes = visitor.js(
        """return [...document.querySelectorAll("#formats button")].map((one) => {
          const { left, right, height } = one.getBoundingClientRect();
          return [left, innerWidth - right, height];
        })"""
    )
    assert min(min(box[:2]) for box in boxes) >= 0, "the menu is in the window"
    assert max(box[2] for box in boxes) < 45, "each of its words in a line"


def test_captions_that_end_by_an_error_while_paused_stay_paused_and_go_on_when_resumed(
    visitor: Visitor, server: Server
) -> None:
    goes_live(visitor, server)
    visitor.sees(".title", "Listening")
    visitor.presses(".talking button", "Pause")
    visitor.sees(".title", "Paused")
    visitor.js("sockets[0].onmessage({data: arguments[0]})", GONE)
    visitor.sees(".trouble", "Try later.")
    visitor.sees(".title", "Paused")
    visitor.presses(".talking button", "Resume")
    visitor.sees(".trouble button", "Try again").click()
    captions(visitor)
    assert visitor.all(".trouble") == []


def test_refused_microphone_is_shown_with_a_remedy(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.js(script("refuse_microphone"))
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".intake .trouble[role=alert]", "Allow it beside the address")
    assert visitor.findings() == []


def test_revised_speakers_change_caption_lines_already_shown(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    line = {"type": "final", "turn": 0, "segment": {"speaker": "Speaker_0", "text": "Me?"}}
    partial = {"type": "partial", "turn": 1, "piece": 2, "text": "Me to", "stable": "Me"}
    revised = {"type": "speakers_revised", "speakers": {"1": "Speaker_1"}}
    told = [{**line, "piece": 0}, {**line, "piece": 1}, {**partial, "tail": "o"}, revised]

    def captions(made: str, told: list[dict[str, Any]]) -> Any:
        expression = f"{made}(given.reduce(the.after, the.NOTHING))"
        return worked_out(visitor, "captions.js", expression, told)

    segments = captions("the.segmentsOf", told)
    assert [one["speaker"] for one in segments] == ["Speaker_0", "Speaker_1"]
    assert captions("the.tailOf", told) == [{"piece": 2, "sure": "Me", "unsure": " to o"}]
    assert captions("the.tailOf", [*told, {"type": "turn_ended", "turn": 1}]) == []


def test_precision_is_changed_on_the_page_after_its_memory_plan_is_shown(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees(".status").click()
    visitor.sees(".plan", "fits: int8")
    assert visitor.findings() == []
    before = server.health()["precision"]
    other = "int8" if before == "fp32" else "fp32"
    visitor.one(f".plan input[value={other}]").click()
    visitor.sees(".precision button", f"Load {other}").click()
    visitor.sees(".facts", f"yes, in {other}")
    assert server.health()["precision"] == other
    server.client.post("/reload-model", json={"precision": before})  # others share the server


def test_languages_are_named_and_one_is_chosen_by_name(visitor: Visitor, server: Server) -> None:
    def said(expression: str, *tags: str) -> Any:
        return worked_out(visitor, "words.js", expression, tags)

    visitor.opens(server)
    assert said("the.languagesOf(given)") == "any language"
    assert said("the.languagesOf(given)", "de") == "German"
    assert said("the.languagesOf(given)", "af", "de", "en") == "English and 2 more"
    assert said("the.namedLanguages(given)", "fr", "en") == [["en", "English"], ["fr", "French"]]
    voices = "en-us", "pt-br", "Ava", "kokoro_af_heart", "alloy"
    found = said("given.map(the.voiceOf)", *voices)
    assert found == ["American English", "Brazilian Portuguese", *voices[2:]]
    named = dict(said("the.namedLanguages(given)"))
    assert named["de"] == "German"
    assert all(tag != name for tag, name in named.items()), "each has a name"
    visitor.sees(".options summary").click()
    names = "return [...document.querySelectorAll('#language option')].map((one) => one.text)"
    assert visitor.js(names)[:2] == ["as it is heard", min(named.values())]
    visitor.sees("#language").send_keys("German")
    assert visitor.js("return document.querySelector('#language').value") == "de"
    visitor.sends_tone("talk.wav", 2)
    visitor.has_rows(2)
    (job,) = server.jobs()
    found = server.client.get(f"/v1/jobs/{job['id']}/transcript").json()
    assert found["metadata"]["language"] == "de"


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
