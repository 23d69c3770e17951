"""What a person wrote into the first part of a talk stays once all of the talk is a job."""

from typing import Any

import pytest
from browser_visitor import ENTER, Visitor
from page_actions import LIVE, refused_at_first, said, writes
from service_process import Server, StartServer, wait_until
from test_page_kept_words import typed, types
from test_page_recorder import UNREACHABLE, pieces

DONE = ".job[data-state=done] .pick"


def shows_the_part(visitor: Visitor) -> None:
    """The part is the oldest of what is done."""
    visitor.all(DONE)[-1].click()
    visitor.sees(".row .said", "w")


def talks_until_a_part_is_done(visitor: Visitor, start_server: StartServer) -> Server:
    """Has captions that are kept; the first session was a job, and the part is shown."""
    server = start_server(live_longest="4s", job_retention="1h")
    visitor.keeps_talks(server)
    visitor.sees(".intake button", LIVE).click()
    visitor.comes_back_until(lambda: visitor.all(DONE), "its first session is a job")
    shows_the_part(visitor)
    return server


def ends_the_talk(visitor: Visitor) -> None:
    """All of the talk is a job that is done, and the browser has forgotten its sound."""
    visitor.js("document.querySelector('.job:not([data-state=done]) .pick').click()")
    visitor.presses(".talking button", "Stop")
    visitor.comes_back_until(lambda: pieces(visitor) == 0, "all of it is a job")


def part_of(server: Server) -> dict[str, Any]:
    """The transcript of the shorter of two jobs."""
    part, whole = sorted(server.jobs(), key=lambda one: one["duration"])
    assert part["duration"] < whole["duration"]
    return server.transcript(part["id"])


def test_correction_being_typed_into_a_part_of_a_talk_is_saved_after_its_end(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = talks_until_a_part_is_done(visitor, start_server)
    types(visitor, 0, " And more.")
    ends_the_talk(visitor)
    wait_until(lambda: len(visitor.all(DONE)) == 2, "both are listed")
    shows_the_part(visitor)
    wait_until(lambda: (typed(visitor) or "").endswith(" And more."), "what was typed")
    visitor.one(".correcting").send_keys(ENTER)
    wait_until(lambda: said(visitor, 0).endswith(" And more."), "it is saved")
    assert part_of(server)["segments"][0]["text"].endswith(" And more.")


def test_corrected_copy_of_a_part_that_the_service_deleted_outlives_the_end_of_the_talk(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = talks_until_a_part_is_done(visitor, start_server)
    visitor.comes_back_until(lambda: visitor.copies() == 1, "it is copied")
    server.client.delete(f"/v1/jobs/{server.jobs()[0]['id']}").raise_for_status()
    visitor.sees(".side h2", "Only in this browser")
    writes(visitor, 0, "By hand.")
    visitor.sees("#said", "in this browser only")
    ends_the_talk(visitor)
    visitor.comes_back_until(lambda: visitor.copies() == 2, "there are copies of both")
    shows_the_part(visitor)
    wait_until(lambda: said(visitor, 0) == "By hand.", "it is as it was corrected")


EDITED_ELSEWHERE = """const { fetch } = window;
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  if (!String(given[0]?.url ?? given[0]).includes("limit=500")) return answer;
  const [part, whole] = (await answer.clone().json()).jobs.filter((one) => one.state === "done");
  if (!whole || window.edited) return answer;
  const operations = [{ op: "text", segment: 0, text: "Theirs." }];
  const headers = { "Content-Type": "application/json" };
  const sent = { method: "PATCH", headers, body: JSON.stringify({ operations }) };
  window.edited = await fetch(`/v1/jobs/${part.id}/transcript`, sent);
  return answer;
};"""
"""Edits the part of a talk behind the list that has the job of all of it for the first time."""


def test_part_of_a_talk_that_was_corrected_since_the_last_look_is_not_deleted(
    visitor: Visitor, start_server: StartServer
) -> None:
    with visitor.before(EDITED_ELSEWHERE):
        server = talks_until_a_part_is_done(visitor, start_server)
        ends_the_talk(visitor)
        visitor.until("window.edited?.ok", "it is edited")
        visitor.comes_back_until(lambda: len(visitor.all(DONE)) == 2, "both are listed")
        assert part_of(server)["segments"][0]["text"] == "Theirs."


EVICTED = """performance.setResourceTimingBufferSize(1e6);
const { getAll } = IDBObjectStore.prototype;
IDBObjectStore.prototype.getAll = function (query, count) {
  return getAll.call(this, query, this.name === "pieces" ? 10 : count);
};"""
"""Of the sound of a talk the browser has the first second left; it remembers all that was asked
for, and not only 250 addresses."""
LOOKS = """const all = performance.getEntriesByType("resource");
const jobs = all.findLast((one) => one.name.endsWith("/v1/jobs"));
return all.filter((one) => one.name.includes("limit=500") && one.startTime > jobs.startTime).length;
"""
"""How often the page has looked since it sent a recording."""


def test_part_that_has_more_of_a_talk_than_its_whole_stays(
    visitor: Visitor, start_server: StartServer
) -> None:
    with visitor.before(EVICTED):
        server = talks_until_a_part_is_done(visitor, start_server)
    (part,) = server.jobs()
    ends_the_talk(visitor)
    visitor.sees(DONE, "Live 2")
    visitor.comes_back_until(lambda: visitor.js(LOOKS) > 3, "more looks")
    durations = {one["id"]: one["duration"] for one in server.jobs()}
    assert durations[part["id"]] == max(durations.values()) > 1.5


LATE = """window.late = "all";
const { fetch } = window;
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  const address = String(given[0]?.url ?? given[0]);
  const missing = { code: "job_not_found", detail: "There is no such job.", hint: "" };
  if (window.late && address.endsWith(window.late)) return Response.json(missing, { status: 404 });
  if (!address.includes("limit=500")) return answer;
  const { jobs, ...more } = await answer.json();
  const shown = jobs.filter(({ id }) => ![id, "all"].includes(window.late));
  return Response.json({ ...more, jobs: shown });
};"""
"""There is no job with the id `late` yet; none at all while it is "all"."""


@pytest.mark.parametrize("again", [False, True], ids=["the tab", "the next tab"])
def test_part_of_a_talk_that_is_a_job_later_than_its_whole_is_not_beside_it(
    again: bool, visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(live_grace="0.2s", job_retention="1h")
    with visitor.before(LATE):
        visitor.keeps_talks(server)
    visitor.js(UNREACHABLE)
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".row .said", "w")
    visitor.js("window.cut = true; lines[0].close(4000)")
    (part,) = wait_until(server.jobs, "its session is a job")
    visitor.sees(".title", "The audio is recorded")
    visitor.js("window.late = arguments[0]; window.cut = false", part["id"])
    visitor.sees(".title", "Listening")
    visitor.presses(".talking button", "Stop")
    visitor.comes_back_until(lambda: pieces(visitor) == 0, "all of it is a job")
    visitor.sees(DONE, "Live 2")
    if again:
        visitor.opens(server)
    else:
        visitor.js("window.late = ''")
    visitor.comes_back_until(lambda: len(server.jobs()) == 1, "it is there once")
    assert server.jobs()[0]["id"] != part["id"]


def test_part_of_a_talk_that_cannot_be_deleted_at_first_is_not_beside_its_whole(
    visitor: Visitor, start_server: StartServer
) -> None:
    with visitor.before(refused_at_first("DELETE", 2, 500, "internal_error")):
        server = talks_until_a_part_is_done(visitor, start_server)
    ends_the_talk(visitor)
    visitor.comes_back_until(lambda: len(server.jobs()) == 1, "it is there once")
    assert visitor.js("return window.refused") == 2
