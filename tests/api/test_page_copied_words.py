"""What a person said stays in the browser until the copy of its transcript is there."""

from collections.abc import Iterator

import pytest
from browser_visitor import Visitor, script
from page_actions import goes_live
from service_process import Server
from test_page_conversation import stops
from test_page_recorder import pieces

FULL = """const { put } = IDBObjectStore.prototype;
window.full = true;
IDBObjectStore.prototype.put = function (row) {
  return this.name === "texts" && window.full ? this.transaction.abort() : put.call(this, row);
};"""
"""The browser has no room for copies while `full` is true."""
LOOKS = 4


@pytest.fixture(autouse=True)
def _emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """The services that tests share have no recordings of others."""
    shared = [*map(request.getfixturevalue, {"server", "talks"} & {*request.fixturenames})]
    for one in shared:
        one.client.delete("/v1/data").raise_for_status()
    yield
    for one in shared:
        one.client.delete("/v1/data").raise_for_status()


def heads(visitor: Visitor) -> int:
    """How many takes the browser has stored."""
    return int(
        visitor.driver.execute_async_script(
            """const [done] = arguments;
            indexedDB.open("vibevoice-recordings", 1).onsuccess = ({ target: { result } }) => {
              const asked = result.transaction("heads").objectStore("heads").count();
              asked.onsuccess = () => (result.close(), done(asked.result));
            };"""
        )
    )


def is_there_until_copied(visitor: Visitor) -> None:
    """What was said is stored while no copy is, however often the page looks, and then no more."""
    looked = visitor.js("return window.looked")
    visitor.comes_back_until(lambda: visitor.js("return looked") > looked + LOOKS, "looks")
    assert heads(visitor) == 1
    assert visitor.copies() == 0
    visitor.js("window.full = false")
    visitor.comes_back_until(lambda: heads(visitor) == 0, "it is not stored any more")
    assert visitor.copies() == 1


def test_recording_is_in_the_browser_until_the_copy_of_its_transcript_is_there(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(FULL + script("count_transcripts")):
        visitor.opens(server)
    visitor.records(1)
    visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "scripted")
    assert pieces(visitor) > 0
    is_there_until_copied(visitor)
    assert pieces(visitor) == 0


def test_kept_talk_is_in_the_browser_until_the_copy_of_its_transcript_is_there(
    visitor: Visitor, server: Server
) -> None:
    visitor.keeps_talks(server)
    with visitor.before(FULL + script("count_transcripts")):
        goes_live(visitor, server)
    visitor.sees(".row .said", "w")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".job[data-state=done] .name", "Live 2")
    is_there_until_copied(visitor)
    assert len(server.jobs()) == len(visitor.all(".job")) == 1


def test_kept_conversation_is_in_the_browser_until_its_copy_is_there(
    visitor: Visitor, talks: Server
) -> None:
    with visitor.before(FULL + script("count_transcripts")):
        visitor.has_typed(talks)
    visitor.sees(".talking label", "Keep as a transcript").click()
    stops(visitor)
    visitor.sees(".job[data-state=done] .name", "Conversation 2")
    is_there_until_copied(visitor)
    assert len(talks.jobs()) == len(visitor.all(".job")) == 1


def test_deleted_transcript_of_a_recording_is_deleted_before_it_is_copied(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(FULL + script("count_transcripts")):
        visitor.opens(server)
    visitor.records(1)
    visitor.sees(".recording button", "Stop").click()
    visitor.sees(".job[data-state=done] [aria-label^=Delete]").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.comes_back_until(lambda: heads(visitor) == 0, "its sound, too")
    visitor.sees("h1", "Who said what")
