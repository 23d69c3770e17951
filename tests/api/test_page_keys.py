"""The keys of the page, shown and used."""

from browser_visitor import ESCAPE, Visitor
from page_actions import HOW_MANY
from service_process import Server

OPEN = "return document.querySelector('dialog[open] h2')?.textContent ?? ''"


def test_question_mark_shows_the_keys_but_not_in_a_field_or_once_it_is_switched_off(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 4)
    visitor.one(".search input").send_keys("?")
    assert visitor.js(OPEN) == "", "it is looked for"
    visitor.js("document.activeElement.blur()")
    visitor.one("body").send_keys("?")
    visitor.sees("dialog[open] dd", "Correct the line")
    assert visitor.findings() == []
    visitor.sees("dialog[open] input[type=checkbox]").click()
    visitor.driver.switch_to.active_element.send_keys(ESCAPE)
    visitor.until("document.querySelector('dialog[open]') === null", "it is closed")
    visitor.driver.refresh()
    visitor.sees("#main .title", "2 speakers")
    visitor.one("body").send_keys("?")
    visitor.sees("[aria-label=Keys]").click()
    visitor.sees("dialog[open] h2", "Keys")
    assert not visitor.one("dialog[open] input[type=checkbox]").is_selected()


def test_number_of_speakers_belongs_to_the_recording_and_not_to_a_speaker(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 4)
    visitor.sees(".lane").click()
    visitor.sees("dialog[open] #called")
    assert visitor.all("dialog[open] [type=number]") == []
    visitor.sees("dialog[open] [aria-label=Close]").click()
    visitor.sees(HOW_MANY).click()
    visitor.sees("dialog[open] #number")
    assert visitor.js(OPEN) == "How many people speak"
    assert visitor.findings() == []


def test_recorder_is_in_the_main_pane_with_discard_beside_stop(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 4)
    visitor.records(1)
    assert visitor.findings() == []
    ends = [one.text for one in visitor.all("#main .recording > button")]
    assert ends == ["Stop and send", "Discard"]
    visitor.sees(".job .pick", "talk.wav").click()
    visitor.sees("#main h1", "talk.wav")
    assert visitor.all(".recording") == [], "another is read meanwhile"
    visitor.sees(".job[data-state=recording] .pick", "Recording").click()
    visitor.sees("#main .recording button", "Stop and send").click()
    visitor.sees(".job[data-state=done] .name", "Recording 2")
    visitor.sees("#main h1", "Recording 2")


def test_failed_file_explains_itself_in_the_main_pane_and_is_removed_there(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.drops("letter.wav", b"This is no sound at all.\n" * 99)
    visitor.sees("#main h1", "letter.wav")
    visitor.sees("#main .trouble", "Send wav, flac")
    visitor.sees(".job[data-state=failed] [aria-current]", "letter.wav")
    assert "Send wav, flac" not in visitor.one(".side").text, "once is enough"
    assert visitor.findings() == []
    visitor.drops("talk.wav", visitor.tone("talk.wav", 3).read_bytes())
    visitor.sees("#main h1", "talk.wav")
    visitor.sees(".job[data-state=failed] .pick").click()
    visitor.sees("#main button", "Remove it from the list").click()
    visitor.until("document.querySelector('.job[data-state=failed]') === null", "it is gone")
