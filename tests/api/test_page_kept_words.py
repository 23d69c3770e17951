"""What a person wrote into the page, and what is theirs, stays: whatever is shown, or who is in."""

from typing import Any

import pytest
from browser_visitor import ENTER, Visitor
from page_actions import (
    LEAVES,
    LINES,
    goes_live,
    kept,
    line,
    said,
    writes,
)
from service_process import Server, StartServer, new_file, wait_until
from test_page import TOKEN
from test_page_recorder import (
    comes_again,
    jobs_of,
    lines,
    owners,  # noqa: F401 (a fixture)
)


def types(visitor: Visitor, index: int, text: str) -> None:
    """Begins to correct a line, and does not save."""
    line(visitor, index).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(text)


def typed(visitor: Visitor) -> str | None:
    """What stands in the field of a line; None without one."""
    text: str | None = visitor.js("return document.querySelector('.correcting')?.value")
    return text


def test_correction_being_typed_outlives_a_restart_of_the_service(visitor: Visitor) -> None:
    home = visitor.folder / "home"
    with Server(home, **kept(home)) as server:
        port = server.port
        visitor.reads(server, "talk.wav", 4)
        types(visitor, 2, " And more.")
    visitor.sees(".banner", "does not answer")
    with Server(home, port=port, **kept(home)) as server:
        visitor.until("document.querySelector('.banner') === null", "it answers")
        visitor.sends_tone("other.wav", 1)
        visitor.sees(".job[data-state=done] .name", "other.wav")
        assert (typed(visitor) or "").endswith(" And more.")
        visitor.driver.switch_to.active_element.send_keys(ENTER)
        wait_until(lambda: said(visitor, 2).endswith(" And more."), "it is saved")
        job = next(one for one in server.jobs() if one["duration"] == 4)
        path = f"/v1/jobs/{job['id']}/transcript"
        found = server.client.get(path).json()["segments"][2]["text"]
        assert found.endswith(" And more.")


def test_correction_being_typed_is_there_again_once_its_transcript_is_shown_again(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 4)
    visitor.sends_tone("other.wav", 2)
    visitor.sees(".job[data-state=done] .name", "other.wav")
    types(visitor, 3, " And more.")
    visitor.js(LEAVES)
    visitor.sees(".job .pick", "other.wav").click()
    visitor.has_rows(2)
    assert typed(visitor) is None
    assert not visitor.js("return leaves()"), "it is nowhere else"
    writes(visitor, 0, "Of the other.")
    wait_until(lambda: said(visitor, 0) == "Of the other.", "both can be corrected")
    visitor.sees(".job .pick", "talk.wav").click()
    visitor.has_rows(4)
    wait_until(lambda: (typed(visitor) or "").endswith(" And more."), "what was typed")
    assert visitor.findings() == []
    visitor.one(".correcting").send_keys(ENTER)
    wait_until(lambda: said(visitor, 3).endswith(" And more."), "it is saved where it was typed")
    assert visitor.js("return leaves()")


def test_own_words_are_put_back_over_those_of_another_tab(visitor: Visitor, server: Server) -> None:
    visitor.reads(server, "talk.wav", 4)
    path = f"/v1/jobs/{server.jobs()[0]['id']}/transcript"
    mine = said(visitor, 2)
    types(visitor, 2, "")
    theirs = {"op": "text", "segment": 2, "text": "Theirs."}
    server.client.patch(path, json={"operations": [theirs]}).raise_for_status()
    shown = "return document.querySelectorAll('.row .said:not([hidden])')[2].textContent"
    visitor.comes_back_until(lambda: visitor.js(shown) == "Theirs.", "in sight")
    visitor.driver.switch_to.active_element.send_keys(ENTER)
    visitor.sees(".trouble", "changed meanwhile")
    visitor.driver.switch_to.active_element.send_keys(ENTER)
    wait_until(lambda: said(visitor, 2) == mine, "they are back")
    assert server.client.get(path).json()["segments"][2]["text"] == mine


def test_finished_upload_takes_nobody_away_from_a_copy_or_a_conversation(
    visitor: Visitor, server: Server
) -> None:
    visitor.has_a_copy_alone(server)
    visitor.sees("#main .notice", "does not have this transcript any more")
    visitor.sends_tone("other.wav", 1)
    visitor.sees(".job[data-state=done] .name", "other.wav")
    assert visitor.rows() == 4
    visitor.sees(".intake button", "Conversation").click()
    visitor.sees("#main h1", "Conversation")
    visitor.sends_tone("third.wav", 1)
    visitor.sees(".job[data-state=done] .name", "third.wav")
    assert visitor.one("#main h1").text == "Conversation"


def test_correction_of_a_copy_that_another_tab_deleted_is_made_in_this_tab(
    visitor: Visitor, server: Server
) -> None:
    visitor.has_a_copy_alone(server)
    visitor.opens(server)  # of what is read from the storage nothing is in the tab
    visitor.sees(".job .pick", "two.wav").click()
    visitor.has_rows(4)
    first = visitor.driver.current_window_handle
    visitor.driver.switch_to.new_window("tab")
    visitor.opens(server)
    visitor.sees("[aria-label='Delete two.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    wait_until(lambda: visitor.copies() == 0, "it is deleted")
    visitor.driver.close()
    visitor.driver.switch_to.window(first)
    visitor.js(LEAVES)
    writes(visitor, 1, "Once.")
    wait_until(lambda: said(visitor, 1) == "Once.", "it is corrected")
    visitor.sees("#main .notice", "in this tab only")
    assert not visitor.js("return leaves()"), "it is nowhere else"
    writes(visitor, 2, "Twice.")
    wait_until(lambda: said(visitor, 2) == "Twice.", "and so is the next")


def test_transcript_deleted_in_one_tab_is_corrected_in_another_and_not_stored_again(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "two.wav", 4)
    visitor.comes_back_until(lambda: visitor.copies() == 1, "it is copied")
    types(visitor, 1, " And more.")
    first = visitor.driver.current_window_handle
    visitor.driver.switch_to.new_window("tab")
    visitor.opens(server)
    visitor.sees("[aria-label='Delete two.wav']").click()
    visitor.sees("dialog[open] .danger").click()
    wait_until(lambda: visitor.copies() == 0, "it is deleted")
    visitor.driver.close()
    visitor.driver.switch_to.window(first)
    visitor.sees("#main .notice", "in this tab only")
    visitor.one(".correcting").send_keys(ENTER)
    wait_until(lambda: said(visitor, 1).endswith(" And more."), "it is corrected")
    visitor.js(LEAVES)
    assert not visitor.js("return leaves()"), "it is nowhere else"
    assert visitor.copies() == 0


def test_copy_in_the_tab_alone_is_hidden_from_another_and_there_for_its_owner_again(
    visitor: Visitor,
    owners: tuple[Server, dict[str, str]],  # noqa: F811
) -> None:
    server, tokens = owners
    with visitor.before("Object.defineProperty(window, 'indexedDB', { get() { throw Error(); } })"):
        visitor.opens(server)
    visitor.is_in(tokens["anna"])
    visitor.sends_tone("anna's.wav", 4)
    visitor.has_rows(4)
    (job,) = jobs_of(server, tokens["anna"])
    anna = {"Authorization": f"Bearer {tokens['anna']}"}
    server.client.delete(f"/v1/jobs/{job['id']}", headers=anna).raise_for_status()
    visitor.sees("#main .notice", "in this tab only")
    writes(visitor, 1, "Hers.")
    wait_until(lambda: said(visitor, 1) == "Hers.", "it is corrected")
    visitor.is_in(tokens["berta"])
    assert "anna's.wav" not in visitor.text()
    visitor.is_in(tokens["anna"])
    visitor.sees(".job .pick", "anna's.wav").click()
    visitor.has_rows(4)
    assert visitor.js(LINES)[1] == "Hers."


FIRST_ABOUT = """const { fetch } = window;
let asked = 0;
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  const about = String(given[0]?.url ?? given[0]).includes("/v1/page/about");
  if (about && (asked += 1) === 1) await new Promise((resolve) => (window.letGo = resolve));
  return answer;
};"""


def test_late_answer_of_who_was_signed_in_before_gives_another_nothing_of_theirs(
    visitor: Visitor,
    owners: tuple[Server, dict[str, str]],  # noqa: F811
) -> None:
    server, tokens = owners
    visitor.records_as(server, tokens["anna"])
    token = visitor.js("return sessionStorage.getItem('vibevoice-token')")
    comes_again(visitor, server)
    visitor.js("sessionStorage.setItem('vibevoice-token', arguments[0])", token)
    with visitor.before(FIRST_ABOUT):
        visitor.driver.refresh()
    visitor.until("Boolean(window.letGo)", "the answer is on its way")
    visitor.js(f"sessionStorage.setItem('vibevoice-token', '{'x' * 40}')")
    visitor.comes_back_until(lambda: visitor.all(".door") != [], "the token is not valid")
    visitor.signs_in(tokens["berta"])
    visitor.until("document.querySelector('.door') === null", "it is open")
    visitor.js("window.letGo()")
    visitor.sends_tone("berta's.wav", 2)
    visitor.sees(".job[data-state=done] .name", "berta's.wav")
    assert "Recording 2" not in visitor.text()


def test_words_being_said_are_not_shown_to_another_who_signs_in(
    visitor: Visitor,
    owners: tuple[Server, dict[str, str]],  # noqa: F811
) -> None:
    server, tokens = owners
    visitor.opens(server)
    visitor.is_in(tokens["anna"])
    visitor.sees(".intake button", "Live captions").click()
    visitor.sees(".tail p", "w")
    visitor.is_in(tokens["berta"])
    visitor.sees(".job .pick", "Live 2").click()
    visitor.until("document.querySelector('.talking .time').textContent >= '0:08'", "more is said")
    visitor.js(
        "window.seen = []; new MutationObserver(() => seen.push(document.querySelector('.tail')"
        ".textContent)).observe(document.querySelector('#main'), {subtree: true, childList: true,"
        " characterData: true})"
    )
    before = visitor.js("return document.querySelector('.talking .time').textContent")
    visitor.until(
        f"document.querySelector('.talking .time').textContent > '{before[:-1]}{before[-1]}'", "on"
    )
    visitor.until("document.querySelector('.talking .time').textContent >= '0:12'", "and more")
    assert set(visitor.js("return seen")) <= {""}
    visitor.presses(".talking button", "Stop")


REFUSED = """for (const name of ["indexedDB", "localStorage", "sessionStorage"])
  Object.defineProperty(window, name, { get() { throw new DOMException("", "Refused"); } });"""
HANGS = """IDBFactory.prototype.open = () => ({});
const { setTimeout: wait } = window;
window.setTimeout = (work, ms, ...given) => wait(work, ms === 15000 ? 100 : ms, ...given);"""


@pytest.mark.parametrize("storage", [REFUSED, HANGS], ids=["refused", "does not answer"])
def test_recording_is_sent_by_a_browser_that_stores_nothing(
    storage: str, visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token=TOKEN)
    with visitor.before(storage):
        visitor.opens(server)
    visitor.signs_in(TOKEN)
    visitor.until("document.querySelector('.door') === null", "it is open")
    visitor.records()
    visitor.sees(".recording .notice", "This browser stores no more")
    visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "scripted")
    assert jobs_of(server, TOKEN)[0]["duration"] > 1


CLOSED = """const { open } = IDBFactory.prototype;
IDBFactory.prototype.open = function (...given) {
  if (window.opens) return open.call(this, ...given);
  const request = {};
  setTimeout(() => request.onerror());
  return request;
};"""
"""The browser cannot open its storage until `opens` is true."""


def test_recording_that_the_browser_could_not_store_at_first_is_offered_whole_at_the_next_visit(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(CLOSED):
        visitor.opens(server)
    visitor.records()
    visitor.sees(".recording .notice", "This browser stores no more")
    visitor.js("window.opens = true")
    visitor.until("!document.querySelector('.recording .notice')", "it is stored")
    comes_again(visitor, server)
    visitor.sees(".job .again", "Send").click()
    visitor.sees("#main .title", "scripted")
    assert server.jobs()[0]["duration"] > 1


READS = """const { getAll } = IDBObjectStore.prototype;
IDBObjectStore.prototype.getAll = function (...given) {
  if (this.name !== "pieces" || !window.unread) return getAll.call(this, ...given);
  throw new DOMException("", "UnknownError");
};"""


def test_recording_whose_pieces_cannot_be_read_is_not_sent_without_them(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(READS):
        visitor.opens(server)
    visitor.records()
    visitor.js("window.unread = true")
    visitor.sees(".recording button", "Stop").click()
    visitor.sees(".job[data-state=failed] .how", "cannot read")
    visitor.sees(".job .again", "Save the audio").click()
    visitor.sees(".job[data-state=failed] .how", "cannot read")
    assert server.jobs() == []
    visitor.js("window.unread = false")
    visitor.sees(".job .again", "Try again").click()
    visitor.sees("#main .title", "scripted")
    assert server.jobs()[0]["duration"] > 1


CONTEXTS = """window.contexts = [];
window.AudioContext = class extends AudioContext {
  constructor(...given) { super(...given); window.contexts.push(this); }
};"""


def test_captions_go_on_behind_an_interruption_of_the_sound(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(CONTEXTS):
        goes_live(visitor, server)
    visitor.sees(".row .said", "w")
    visitor.js("contexts[0].suspend()")
    before = len(lines(visitor))
    wait_until(lambda: len(lines(visitor)) > before + 1, "more lines")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")


def test_recording_of_one_person_is_not_discarded_by_another(
    visitor: Visitor,
    owners: tuple[Server, dict[str, str]],  # noqa: F811
) -> None:
    server, tokens = owners
    visitor.records_as(server, tokens["anna"])
    assert visitor.all("[aria-label='Discard this recording']") != []
    visitor.is_in(tokens["berta"])
    assert visitor.all("[aria-label='Discard this recording']") == []
    visitor.sees(".recording button", "Stop").click()
    visitor.is_in(tokens["anna"])
    visitor.sees(".job .pick", "Recording 2")


def test_name_typed_for_a_speaker_is_not_given_to_another_who_has_that_number_now(
    visitor: Visitor, server: Server
) -> None:
    visitor.reads(server, "talk.wav", 6)
    path = f"/v1/jobs/{server.jobs()[0]['id']}/transcript"
    visitor.sees(".lane[data-speaker=Speaker_1]").click()
    field = visitor.sees("dialog[open] #called")
    field.send_keys("Nell")
    segments: list[dict[str, Any]] = server.client.get(path).json()["segments"]
    first = [at for at, one in enumerate(segments) if one["speaker"] == "Speaker_0"]
    moved = [{"op": "move", "segments": first[:1], "speaker": "Speaker_1"}]
    server.client.patch(path, json={"operations": moved}).raise_for_status()
    visitor.comes_back_until(
        lambda: visitor.js("return document.querySelector('#called').value") == "",
        "it is asked anew",
    )
    visitor.one("#called").send_keys(ENTER)
    segments = server.client.get(path).json()["segments"]
    assert not any(one.get("name") for one in segments)


AWAKE = """window.awake = 0;
const request = async () => ((window.awake += 1), { release: () => (window.awake -= 1) });
Object.defineProperty(navigator, "wakeLock", { value: { request } });"""


def test_phone_is_kept_awake_while_it_records(visitor: Visitor, server: Server) -> None:
    with visitor.before(AWAKE):
        visitor.opens(server)
    assert visitor.js("return awake") == 0
    visitor.records(1)
    assert visitor.js("return awake") == 1
    visitor.js("document.dispatchEvent(new Event('visibilitychange'))")
    visitor.until("awake === 2", "the browser let go of the first when the page was hidden")
    visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "scripted")
    assert visitor.js("return awake") == 1


TWO_FRONTS = """const { fetch } = window;
window.looks = 0;
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  if (!String(given[0]?.url ?? given[0]).endsWith("/health")) return answer;
  return Response.json({ ...(await answer.json()), instance: `front ${(window.looks += 1) % 2}` });
};"""


def test_two_fronts_in_turn_are_no_restart_of_the_service(visitor: Visitor) -> None:
    home = visitor.folder / "home"
    hold = new_file(visitor.folder / "hold", "4")
    with Server(home, scripted_hold=hold, **kept(home)) as server:
        with visitor.before(TWO_FRONTS):
            visitor.opens(server)
        visitor.sends_tone("talk.wav", 3)
        visitor.has_rows(3)
        hold.write_text("0")
        visitor.records(1)
        visitor.sees(".recording button", "Stop").click()
        wait_until(lambda: len(server.jobs()) == 2, "it is sent")
        visitor.sees(".job[data-state=running]")
        visitor.sees(".job .pick", "talk.wav").click()
        visitor.has_rows(3)
        visitor.js("window.row = document.querySelector('.row')")
        job = next(one for one in server.jobs() if one["state"] != "done")
        server.client.delete(f"/v1/jobs/{job['id']}").raise_for_status()
        visitor.sees(".side h2", "Only in this browser")
        looks = visitor.js("return window.looks")
        visitor.comes_back_until(
            lambda: visitor.js("return window.looks") > looks + 3, "more looks"
        )
        assert len(server.jobs()) == 1, "what was deleted is not sent again"
        assert visitor.js("return window.row.isConnected"), "what is read stands"


LOST_ANSWERS = """const { fetch } = window;
window.loses = true;
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  const [address, { method } = {}] = given;
  if (window.loses && method === "POST" && String(address).endsWith("/v1/jobs")) throw TypeError();
  return answer;
};"""


def test_recording_whose_answers_were_lost_is_one_job(visitor: Visitor, server: Server) -> None:
    with visitor.before(LOST_ANSWERS):
        visitor.opens(server)
    visitor.sends_tone("talk.wav", 2)
    visitor.sees(".job[data-state=failed] .name", "talk.wav")
    visitor.js("window.loses = false")
    visitor.sees("#main .title", "2 speakers")
    assert len(server.jobs()) == 1


STOPPING = """const { fetch } = window;
[window.stops, window.told] = [false, 0];
window.fetch = async (...given) => {
  const answer = await fetch(...given);
  if (!window.stops || !String(given[0]?.url ?? given[0]).includes("limit=500")) return answer;
  const error = { code: "shutting_down", detail: "The service stops.", hint: "" };
  const { jobs, ...more } = await answer.json();
  window.told += jobs.length;
  return Response.json({ ...more, jobs: jobs.map((job) => ({ ...job, state: "failed", error })) });
};"""
"""Lists as of a service that stops: of jobs that were not done."""


def test_recording_that_failed_as_its_service_stopped_is_sent_to_the_next(
    visitor: Visitor,
) -> None:
    hold = new_file(visitor.folder / "hold", "1")  # the job is not done when its service ends
    with Server(visitor.folder / "before", scripted_hold=hold) as server:
        port = server.port
        with visitor.before(STOPPING):
            visitor.opens(server)
        visitor.sends_tone("kept.wav", 3)
        visitor.sees(".job[data-state=running]")
        visitor.js("window.stops = true")
        visitor.comes_back_until(lambda: visitor.js("return told") > 1, "the page is told")
        visitor.js("window.stops = false")
    with Server(visitor.folder / "after", port=port) as server:
        visitor.comes_back_until(lambda: server.jobs(), "it is sent again")
        visitor.sees("#main .title", "2 speakers")
        assert len(server.jobs()) == 1


SLOW_STORAGE = """const { prototype } = IDBTransaction;
const { set } = Object.getOwnPropertyDescriptor(prototype, "oncomplete");
Object.defineProperty(prototype, "oncomplete", {
  set(done) {
    set.call(this, (event) => setTimeout(done, this.mode === "readwrite" ? 150 : 0, event));
  },
});
const [{ send }, { createObjectURL }] = [WebSocket.prototype, URL];
[window.sent, window.finished] = [0, 0];
WebSocket.prototype.send = function (data) {
  if (typeof data !== "string") window.sent += data.byteLength;
  else if (data.includes("finish")) window.finished = window.sent;
  return send.call(this, data);
};
URL.createObjectURL = (file) => ((window.written = file.size - 44), createObjectURL(file));"""


def test_talk_is_heard_to_its_end_also_if_the_storage_is_behind(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(SLOW_STORAGE):
        visitor.opens(server)
    visitor.sees(".intake button", "Live captions").click()
    visitor.sees(".row .said", "w")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    visitor.until("window.written > 0", "all of its sound is there")
    assert visitor.js("return [finished, sent]") == [visitor.js("return written")] * 2
