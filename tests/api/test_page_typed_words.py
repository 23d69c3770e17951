"""What a person types on the page stays until it is saved or left, in a real browser."""

from browser_visitor import CONTROL, ENTER, Visitor, script
from page_actions import line, reads_with_holds, refused_at_first, said
from service_process import Server, wait_until

FIELD = "return document.querySelector('.correcting')?.value"
CALLED = "return document.querySelector('dialog[open] #called')?.value"


def begins_edit(visitor: Visitor, index: int, *keys: str) -> None:
    """Opens the field of a line, and puts these in the place of its text."""
    line(visitor, index).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(CONTROL, "a", CONTROL, *keys)


def is_on_its_way(visitor: Visitor) -> None:
    wait_until(lambda: visitor.js("return Boolean(held.edit)"), "the edit is on its way")


def test_words_typed_while_a_line_is_saved_stay_and_are_saved_next(
    visitor: Visitor, server: Server
) -> None:
    reads_with_holds(visitor, server)
    visitor.js("holds.edit = true")
    begins_edit(visitor, 2, "One", ENTER)
    is_on_its_way(visitor)
    visitor.driver.switch_to.active_element.send_keys(" and two")
    visitor.js("holds.edit = false; held.edit()")
    visitor.sees("#said", "Segment corrected.")
    wait_until(lambda: said(visitor, 2) == "One", "the first is saved")
    assert visitor.js(FIELD) == "One and two"
    visitor.driver.switch_to.active_element.send_keys(ENTER)
    wait_until(lambda: said(visitor, 2) == "One and two", "the rest is saved")
    assert visitor.js(FIELD) is None


def test_emptied_line_is_not_left_as_if_it_were_saved(visitor: Visitor, server: Server) -> None:
    visitor.reads(server, "talk.wav", 2)
    begins_edit(visitor, 1, " ", ENTER)
    assert visitor.js(FIELD) == " "
    told = visitor.js("return document.querySelector('.correcting').validationMessage")
    assert "cannot be empty" in told
    visitor.driver.switch_to.active_element.send_keys("Something", ENTER)
    wait_until(lambda: said(visitor, 1) == "Something", "it is saved")


def test_key_of_an_input_method_ends_no_line(visitor: Visitor, server: Server) -> None:
    visitor.reads(server, "talk.wav", 2)
    begins_edit(visitor, 1, "Some")
    for key in ("Escape", "Enter"):
        visitor.js(
            """document.querySelector('.correcting').dispatchEvent(new KeyboardEvent(
                 "keydown", { key: arguments[0], isComposing: true, bubbles: true }))""",
            key,
        )
    assert visitor.js(FIELD) == "Some"


def test_letters_typed_while_a_name_is_saved_stay(visitor: Visitor, server: Server) -> None:
    reads_with_holds(visitor, server)
    visitor.js("holds.edit = true")
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #called").send_keys("Nel", ENTER)
    is_on_its_way(visitor)
    visitor.sees("dialog[open] #called").send_keys("l")
    visitor.js("holds.edit = false; held.edit()")
    visitor.sees("#said", "called Nel now")
    assert visitor.js(CALLED) == "Nell"
    visitor.sees("dialog[open] #called").send_keys(ENTER)
    visitor.sees(".lane", "Nell")


def test_refusal_is_told_with_its_own_transcript(visitor: Visitor, server: Server) -> None:
    refused = refused_at_first("PATCH", 1, 503, "storage_busy")
    with visitor.before(refused), visitor.before(script("hold_answers")):
        visitor.opens(server)
    visitor.sends_tone("first.wav", 2)
    visitor.has_rows(2)
    visitor.sends_tone("second.wav", 4)
    visitor.sees(".job[data-state=done] .name", "second.wav")
    visitor.js("holds.edit = true")
    begins_edit(visitor, 1, "Yours.", ENTER)
    is_on_its_way(visitor)
    visitor.sees(".job .pick", "second.wav").click()
    visitor.has_rows(4)
    visitor.js("holds.edit = false; held.edit()")
    visitor.sees(".job .pick", "first.wav").click()
    visitor.sees("#main .trouble")
    assert visitor.js(FIELD) == "Yours."
    visitor.sees(".job .pick", "second.wav").click()
    visitor.has_rows(4)
    assert visitor.all("#main .trouble") == []


def test_conversation_stopped_by_a_double_click_is_kept(visitor: Visitor, talks: Server) -> None:
    visitor.has_typed(talks)
    visitor.sees(".talking label", "Keep as a transcript").click()
    visitor.js(
        """const stop = [...document.querySelectorAll(".talking button")].at(-1);
        stop.click();
        stop.click();"""
    )
    visitor.sees(".job[data-state=done] .name", "Conversation 2")
    talks.client.delete("/v1/data").raise_for_status()
