"""Copies of transcripts in the browser: whole, with the last correction, and in nobody's way."""

from typing import Any

from browser_visitor import Visitor, script
from page_actions import LINES, said, writes
from service_process import Server, wait_until
from test_page_recorder import comes_again


def reads_a_copied_one(visitor: Visitor, server: Server) -> None:
    """Opens the page with `hold_answers`; the transcript that is shown has a copy."""
    with visitor.before(script("hold_answers")):
        visitor.opens(server)
    visitor.sends_tone("talk.wav", 6)
    visitor.has_rows(6)
    visitor.comes_back_until(lambda: visitor.copies() == 1, "it is copied")


def test_correction_is_in_the_copy_of_a_tab_that_is_closed_as_soon_as_it_is_said_to_be_made(
    visitor: Visitor, server: Server
) -> None:
    reads_a_copied_one(visitor, server)
    visitor.js("holds.list = true")
    writes(visitor, 2, "By hand.")
    visitor.sees("#said", "Segment corrected.")
    server.client.delete("/v1/data").raise_for_status()
    comes_again(visitor, server)
    visitor.sees(".side h2", "Only in this browser")
    visitor.sees(".job .pick", "talk.wav").click()
    visitor.has_rows(6)
    assert said(visitor, 2) == "By hand."


def made(server: Server, visitor: Visitor, count: int) -> list[str]:
    """So many jobs that are done."""
    voice = visitor.tone("more.wav", 2).read_bytes()
    jobs = [server.submit(voice) for _ in range(count)]
    for job in jobs:
        server.wait_state(job, "done")
    return jobs


def test_correction_waits_for_no_copy_that_is_being_made(visitor: Visitor, server: Server) -> None:
    reads_a_copied_one(visitor, server)
    visitor.js("holds.transcript = true")
    made(server, visitor, 3)
    visitor.comes_back_until(lambda: visitor.js("return Boolean(held.transcript)"), "a copy")
    writes(visitor, 2, "By hand.")
    wait_until(lambda: said(visitor, 2) == "By hand.", "it is made")
    assert visitor.copies() == 1, "no other copy could be made"
    visitor.js("holds.transcript = false; held.transcript()")
    visitor.comes_back_until(lambda: visitor.copies() == 4, "they are")
    assert visitor.js(LINES)[2] == "By hand."


def test_all_copies_that_are_due_are_made_in_one_look(visitor: Visitor, server: Server) -> None:
    count = 12
    jobs = made(server, visitor, count)
    with visitor.before(script("count_transcripts")):
        visitor.opens(server)
    visitor.until("window.asked.length > 0", "the page has its storage, and copies")
    wait_until(lambda: visitor.copies() == count, "all are copied")
    looked: int = visitor.js("return window.looked")
    assert looked < count, "not one at each look"
    asked: list[Any] = visitor.js("return window.asked")
    assert len(asked) == len(jobs), "each is asked for once"


SLOW_HEADS = """const { getAll } = IDBObjectStore.prototype;
IDBObjectStore.prototype.getAll = function (...given) {
  const again = () => {
    if (!window.slow) return;
    getAll.call(this, ...given).onsuccess = () => ((window.reading = true), again());
  };
  again();
  return getAll.call(this, ...given);
};"""
"""While `slow` is true, the browser is still at it when somebody reads all that it has stored."""


def test_copy_that_is_deleted_while_all_are_read_does_not_come_back(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(SLOW_HEADS):
        visitor.reads(server, "talk.wav", 2)
    (other,) = made(server, visitor, 1)
    visitor.comes_back_until(lambda: visitor.copies() == 2, "both are copied")
    visitor.js("window.slow = true")
    server.client.delete(f"/v1/jobs/{other}").raise_for_status()
    visitor.comes_back_until(lambda: visitor.js("return window.reading"), "all are read")
    visitor.sees("[aria-label='Delete talk.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    wait_until(lambda: not server.jobs(), "the service has deleted it")
    visitor.js("window.slow = false")
    visitor.sees("#said", "talk.wav was deleted.")
    wait_until(lambda: visitor.copies() == 1, "its copy is deleted")
    names = [one.text for one in visitor.all(".job .pick .name")]
    assert len(names) == 1
    assert "talk.wav" not in names


def test_deleted_transcript_is_not_listed_again_by_a_list_that_is_older(
    visitor: Visitor, server: Server
) -> None:
    reads_a_copied_one(visitor, server)
    visitor.js("holds.list = true")
    visitor.comes_back_until(lambda: visitor.js("return Boolean(held.list)"), "a list")
    visitor.sees("[aria-label='Delete talk.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#said", "talk.wav was deleted.")
    visitor.js("const older = held.list; held.list = null; older()")
    visitor.comes_back_until(lambda: visitor.js("return Boolean(held.list)"), "the next list")
    assert visitor.all(".job") == []
