"""What a person said stays in the browser until its copy is there, and a correction in the copy."""

from browser_visitor import Visitor, script
from page_actions import goes_live, said, writes
from service_process import Server, wait_until
from test_page import TOKEN
from test_page_conversation import stops
from test_page_recorder import comes_again, pieces

FULL = """const { put } = IDBObjectStore.prototype;
window.full = true;
IDBObjectStore.prototype.put = function (row) {
  return this.name === "texts" && window.full ? this.transaction.abort() : put.call(this, row);
};"""
"""The browser has no room for copies while `full` is true."""
LOOKS = 4


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


HIDES = """const { fetch } = window;
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  if (!window.hides || !String(given[0]?.url ?? given[0]).includes("limit=500")) return answer;
  return Response.json({ ...(await answer.json()), jobs: [] });
};"""
"""The service has no jobs while `hides` is true."""


def test_copy_that_was_corrected_stays_beside_its_job_if_the_service_has_that_again(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(HIDES):
        visitor.reads(server, "talk.wav", 4)
    visitor.comes_back_until(lambda: visitor.copies() == 1, "it is copied")
    visitor.js("window.hides = true")
    visitor.comes_back_until(lambda: "Only in this browser" in visitor.text(), "it is gone")
    before = said(visitor, 1)
    writes(visitor, 1, "By hand.")
    wait_until(lambda: said(visitor, 1) == "By hand.", "it is corrected")
    visitor.js("window.hides = false")
    visitor.comes_back_until(lambda: visitor.copies() == 2, "its job has a copy, too")
    assert said(visitor, 1) == "By hand."
    visitor.opens(server)
    visitor.sees(".job[data-state=done] .pick", "talk.wav").click()
    visitor.has_rows(4)
    assert said(visitor, 1) == before
    visitor.sees(".job .pick", "talk.wav, as corrected here").click()
    wait_until(lambda: said(visitor, 1) == "By hand.", "the copy is as it was")


FILL = """const [count, done] = arguments;
indexedDB.open("vibevoice-copies", 1).onsuccess = ({ target: { result } }) => {
  const both = result.transaction(["heads", "texts"], "readwrite");
  const [heads, texts] = ["heads", "texts"].map((name) => both.objectStore(name));
  heads.getAll().onsuccess = ({ target: { result: [head] } }) => {
    for (let i = 0; i < count; i += 1) {
      const job = { ...head.job, id: `old ${i}`, name: `Interview ${i}` };
      heads.put({ ...head, id: job.id, job, at: head.at - 1e7 + i, corrected: i === 0 });
      const metadata = { duration: 1, speakers: [], warnings: [] };
      texts.put({ id: job.id, segments: [], metadata });
    }
  };
  both.oncomplete = () => (result.close(), done());
};"""
"""As many older copies; the oldest was corrected."""


def has_older_copies(visitor: Visitor, server: Server, count: int) -> None:
    """The browser has a copy, and so many older ones, when the page is opened."""
    visitor.reads(server, "talk.wav", 2)
    visitor.comes_back_until(lambda: visitor.copies() == 1, "it is copied")
    visitor.driver.execute_async_script(FILL, count)
    comes_again(visitor, server)


def test_corrected_copy_is_not_deleted_for_newer_ones_and_another_is_told(
    visitor: Visitor, server: Server
) -> None:
    has_older_copies(visitor, server, 200)
    visitor.sees(".job .pick", "Interview 1")
    visitor.sends_tone("next.wav", 1)
    visitor.sees(".job[data-state=deleted] .how", "this browser deleted its copy")
    assert visitor.one(".job[data-state=deleted] .name").text == "Interview 1"
    assert visitor.copies() == 201
    visitor.opens(server)
    visitor.sees("[aria-label='Delete Interview 0']")


CORRECTED = """const [id, done] = arguments;
indexedDB.open("vibevoice-copies", 1).onsuccess = ({ target: { result } }) => {
  const both = result.transaction(["heads", "texts"], "readwrite");
  const heads = both.objectStore("heads");
  heads.get(id).onsuccess = ({ target }) => heads.put({ ...target.result, at: 1, corrected: true });
  both.oncomplete = () => (result.close(), done());
};"""
"""Another tab corrected a copy, and this one does not know."""
HEAD = """const [id, done] = arguments;
indexedDB.open("vibevoice-copies", 1).onsuccess = ({ target: { result } }) => {
  const asked = result.transaction("heads").objectStore("heads").get(id);
  asked.onsuccess = () => (result.close(), done(asked.result));
};"""


def test_copy_that_another_tab_corrected_is_neither_deleted_for_newer_ones_nor_counted_as_unread(
    visitor: Visitor, server: Server
) -> None:
    has_older_copies(visitor, server, 200)
    visitor.sees("[aria-label='Delete Interview 3']")
    visitor.driver.execute_async_script(CORRECTED, "old 1")
    visitor.driver.execute_async_script(CORRECTED, "old 3")
    visitor.js(
        """document.querySelector("[aria-label='Delete Interview 3']")
        .closest(".job").querySelector(".pick").click()"""
    )
    wait_until(lambda: visitor.driver.execute_async_script(HEAD, "old 3")["at"] > 1, "it is read")
    assert visitor.driver.execute_async_script(HEAD, "old 3")["corrected"]
    for name in ("next.wav", "later.wav", "last.wav"):
        visitor.sends_tone(name, 1)
    visitor.sees(".job[data-state=deleted] .how", "this browser deleted its copy")
    assert visitor.one(".job[data-state=deleted] .name").text == "Interview 2"
    assert visitor.driver.execute_async_script(HEAD, "old 1")["corrected"]


def test_copy_that_another_tab_corrected_is_deleted_only_once_that_was_said(
    visitor: Visitor, server: Server
) -> None:
    has_older_copies(visitor, server, 2)
    visitor.sees("[aria-label='Delete Interview 1']").click()
    visitor.driver.execute_async_script(CORRECTED, "old 1")
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("dialog[open]", "Somebody has changed it meanwhile")
    assert visitor.driver.execute_async_script(HEAD, "old 1")


def test_first_token_of_a_service_hides_nothing_that_was_stored_without_one(
    visitor: Visitor,
) -> None:
    with Server(visitor.folder / "before") as server:
        port = server.port
        visitor.has_a_copy_alone(server)
        visitor.records(1)
        comes_again(visitor, server)
        visitor.sees(".job .pick", "Recording 2")
    with Server(visitor.folder / "after", port=port, token=TOKEN) as server:
        visitor.opens(server)
        visitor.signs_in(TOKEN)
        visitor.sees(".job .pick", "Recording 2")
        visitor.sees(".job .pick", "two.wav")
        visitor.sees(".job .again", "Send").click()
        visitor.sees("#main .title", "scripted")
