"""The page tells what the service has deleted, when and why."""

import datetime
import re

import httpx
import pytest
from browser_visitor import Visitor
from page_actions import said, stores_no_copies, worked_out
from service_clock import AHEAD_S, clocked_command, put_ahead
from service_process import Server, StartServer, wait_until

AWAY = f"const now = Date.now; Date.now = () => now() + {1000 * AHEAD_S};"
"""Script of a page that is opened an hour later."""
ROWS = """
  return [...document.querySelectorAll(".job[data-state=deleted]")].map((one) => one.innerText);
"""
SEEN = "return JSON.parse(localStorage.getItem('vibevoice-jobs') ?? '[]')"


def noted(visitor: Visitor, jobs: int) -> None:
    """Wait until the browser has seen the end of so many jobs."""
    wait_until(
        lambda: [bool(one["ended"]) for one in visitor.js(SEEN)] == [True] * jobs, "they are noted"
    )


def an_hour_goes_by(server: Server) -> None:
    """Put the service's clock ahead, by which it deletes its transcripts."""
    put_ahead(server)

    def is_empty() -> bool:
        try:
            return not server.jobs()
        except httpx.TransportError:  # connections are an hour old, too
            return False

    wait_until(is_empty, "it is deleted")


def test_transcript_that_expired_while_the_page_was_closed_is_told_with_when_and_why(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(command=clocked_command(visitor.folder), job_retention="1h")
    visitor.reads(server, "talk.wav", 4)
    stores_no_copies(visitor)
    ended = datetime.datetime.fromisoformat(server.jobs()[0]["ended"]).timestamp()
    noted(visitor, 1)
    visitor.driver.get("about:blank")
    an_hour_goes_by(server)
    with visitor.before(AWAY):
        visitor.opens(server)
        visitor.sees(".side h2", "Deleted")
        (told,) = visitor.js(ROWS)
        time = r"\d{1,2}:\d\d\W[AP]M"
        why = "1 hour after it was last read or edited"
        sentence = rf"was done at {time}; the service deleted it at .*{time}, {why}\."
        name, fate = told.split("\n")
        assert name == "talk.wav"
        assert re.fullmatch(sentence, fate), fate
        (row,) = visitor.js(SEEN)
        assert row["gone"]["at"] / 1000 >= ended + AHEAD_S - 2
        assert visitor.findings() == []
        visitor.sees("[aria-label='Remove talk.wav from the list']").click()
        visitor.sees("h1", "Who said what")
        visitor.opens(server)
        assert visitor.js(ROWS) == []
        assert visitor.js(SEEN) == []


def test_copy_of_an_expired_transcript_says_when_the_service_deleted_its_own(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(command=clocked_command(visitor.folder), job_retention="1h")
    visitor.reads(server, "talk.wav", 4)
    noted(visitor, 1)
    visitor.comes_back_until(lambda: visitor.copies() == 1, "it is copied")
    visitor.driver.get("about:blank")
    an_hour_goes_by(server)
    with visitor.before(AWAY):
        visitor.opens(server)
        visitor.sees(".job .pick", "talk.wav").click()
        visitor.sees("#main .notice", "It was done at ")
        visitor.sees("#main .notice", "1 hour after it was last read or edited.")
        visitor.sees("#main .notice", "This copy is stored in this browser.")
        assert visitor.js(ROWS) == [], "it is in the list already"


def test_transcripts_that_a_restart_lost_are_told_and_what_was_not_done_as_such(
    visitor: Visitor,
) -> None:
    hold = visitor.folder / "hold"
    with Server(visitor.folder / "before", scripted_hold=hold) as server:
        port = server.port
        visitor.opens(server)
        server.done(visitor.tone("one.wav", 2).read_bytes())
        hold.write_text("1")
        sent = {"audio": ("board.wav", visitor.tone("two.wav", 60).read_bytes())}
        server.client.post("/v1/jobs", files=sent).raise_for_status()
        wait_until(lambda: len(visitor.js(SEEN)) == 2, "both are noted")
        stores_no_copies(visitor)
        wait_until(lambda: len(visitor.js(SEEN)) == 2, "both are noted again")
    with Server(visitor.folder / "after", port=port):
        visitor.comes_back_until(lambda: len(visitor.js(ROWS)) == 2, "both are told")
        rows = sorted(one.split("\n")[::-1] for one in visitor.js(ROWS))
    fates = [one[0] for one in rows]
    assert rows[1][1] == "board.wav", "as the service called it"
    since = "; the service was restarted since, and had not stored it."
    assert fates[1] == f"was not done yet{since}"
    assert re.fullmatch(rf"was done at .*M{re.escape(since)}", fates[0]), fates


@pytest.mark.system
def test_job_that_its_owner_deleted_elsewhere_is_not_told(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server()
    visitor.opens(server)
    first = server.done(visitor.tone("one.wav", 2).read_bytes())
    second = server.done(visitor.tone("two.wav", 3).read_bytes())
    visitor.comes_back_until(lambda: len(visitor.js(SEEN)) == 2, "both are noted")
    stores_no_copies(visitor)
    server.client.delete(f"/v1/jobs/{first}").raise_for_status()
    ids = "return JSON.parse(localStorage.getItem('vibevoice-jobs')).map((one) => one.id)"
    visitor.comes_back_until(lambda: visitor.js(ids) == [second], "the first is forgotten")
    assert visitor.js(ROWS) == []
    server.client.delete("/v1/data").raise_for_status()
    visitor.sees("h1", "Who said what")
    assert visitor.js(SEEN) == []


NOTED = """(localStorage.removeItem("vibevoice-jobs"), given.map(([owner, ids, now]) => {
  const done = { state: "done", name: "", created: "", ended: "now", space_left: 1 };
  const jobs = ids.map((id) => ({ ...done, id, expires_in: 3600 }));
  const about = { owner, keeps_jobs: true, keeps_seconds: 3600 };
  const told = the.note(jobs, about, "a start", new Set(), now).map((one) => one.id);
  return [told, JSON.parse(localStorage.getItem("vibevoice-jobs")).map((one) => one.id)];
}))"""
"""What is told, and what is remembered, after each look: of an owner at so many milliseconds."""


def test_browser_forgets_first_the_jobs_that_were_not_listed_for_the_longest_time(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    first, others, more = ([f"{name}{n}" for n in range(300)] for name in "abc")
    listed = [*first[:10], *more[:5]]
    looks = [["anna", first[:10], 1], ["berta", others[:290], 2], ["anna", listed, 3]]
    told, left = worked_out(visitor, "deleted.js", NOTED, looks)[-1]
    assert told == []
    assert left == [*others[5:290], *listed]


def test_what_the_service_deleted_is_told_also_beside_more_jobs_than_are_remembered(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    jobs = [f"job {n}" for n in range(330)]
    later = 3_700_000
    looks = [["anna", jobs[:300], 0], *(["anna", jobs[20:], later + n] for n in range(3))]
    found = worked_out(visitor, "deleted.js", NOTED, looks)
    assert [len(told) for told, _ in found] == [0, 20, 20, 20]
    assert found[-1][1] == [*jobs[50:], *jobs[:20]]


def test_delete_that_would_take_a_correction_unseen_is_asked_again(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 2)
    visitor.sees("[aria-label='Delete talk.wav']").click()
    dialog = visitor.sees("dialog[open]", "Delete the transcript")
    assert "changed it" not in dialog.text
    path = f"/v1/jobs/{server.jobs()[0]['id']}/transcript"
    theirs = {"op": "text", "segment": 1, "text": "Theirs."}
    server.client.patch(path, json={"operations": [theirs]}).raise_for_status()
    visitor.comes_back_until(lambda: said(visitor, 1) == "Theirs.", "it is shown")
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("dialog[open]", "Somebody has changed it meanwhile.")
    assert server.client.get(path).json()["segments"][1]["text"] == "Theirs."
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#said", "talk.wav was deleted.")
    assert server.jobs() == []


LOST = """const [count, done] = arguments;
fetch("/v1/page/about").then((answer) => answer.json()).then(({ owner }) => {
  const at = Date.now();
  const created = new Date(at).toISOString();
  const rows = Array.from({ length: count }, (_, i) => (
    { id: `lost ${i}`, name: `Lost ${i}`, owner, created, gone: { why: "restarted", at: at - i } }
  ));
  localStorage.setItem("vibevoice-jobs", JSON.stringify(rows));
  done();
});"""
"""So many transcripts were deleted."""


def test_deleted_transcripts_that_are_not_listed_are_counted(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.driver.execute_async_script(LOST, 30)
    visitor.opens(server)
    visitor.sees(".side section .quiet", "And 10 more.")
    assert len(visitor.js(ROWS)) == 20
    visitor.sees("[aria-label^='Remove Lost 3 ']").click()
    visitor.sees(".side section .quiet", "And 9 more.")
    assert len(visitor.js(ROWS)) == 20
