"""Lines and speakers are corrected on the page, in a real browser."""

import pytest
from browser_visitor import CONTROL, DOWN, ENTER, ESCAPE, SHIFT, Visitor, script
from page_actions import (
    FOCUS,
    HOW_MANY,
    LANES,
    LEAVES,
    LINES,
    line,
    names,
    reads_with_holds,
    refused_at_first,
    said,
    undoes,
    writes,
)
from service_process import Server, wait_until
from wheel_recordings import clip_wav


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
    visitor.sees(HOW_MANY).click()
    visitor.sees("dialog[open] #number").send_keys("4", ENTER)
    visitor.sees("#main .title", "4 speakers")
    last = visitor.rows() - 1
    visitor.js("holds.diarize = true")
    visitor.sees(HOW_MANY).click()
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


def test_name_that_is_refused_stays_in_its_dialog_and_is_saved_at_the_next_try(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "two.wav", 2)
    visitor.js(refused_at_first("PATCH", 1, 503, "storage_busy"))
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #called").send_keys("Nell", ENTER)
    visitor.sees("dialog[open] .trouble")
    assert visitor.js("return document.querySelector('#called').value") == "Nell"
    visitor.sees("dialog[open] .main", "Save").click()
    visitor.sees(".lane", "Nell")
    assert visitor.all("dialog[open]") == []


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
    visitor.sees(".lane", "Nagg")
    visitor.sees(HOW_MANY).click()
    visitor.sees("dialog[open] #number").send_keys("1", ENTER)
    visitor.sees("#said", "1 speaker now.")
    visitor.sees("#main .title", "1 speaker")
    assert visitor.js(LANES) == ["Nagg"]
    visitor.sees(HOW_MANY).click()
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
    visitor.sees(HOW_MANY).click()
    visitor.sees("dialog[open] #number").send_keys("3", ENTER)
    visitor.sees(".trouble", "Submit the recording again")
