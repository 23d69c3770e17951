"""What was spoken into the page is not lost, whatever becomes of page, browser and service."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from browser_visitor import CONTROL, Visitor, script, spoken
from page_actions import LEAVES, downloaded, goes_live, refused_at_first, worked_out
from service_process import Server, StartServer, new_file, wait_until
from test_page import TOKEN

from sidecar.auth.token_issuing import TokenIssuer

STATES = {"recording", "waiting", "sending", "sent", "kept", "done", "gone"}
EVENTS = {
    *("ended", "captioned", "made", "begun", "sent", "refused", "done", "failed", "restarted"),
    *("send", "lacking", "found", "deleted"),
}
NO_STORAGE = """Object.defineProperty(window, "indexedDB", { get() { throw Error("none"); } });"""
FULL_SOON = """const { put } = IDBObjectStore.prototype;
let pieces = 0;
IDBObjectStore.prototype.put = function (row) {
  if (this.name === "pieces" && (pieces += 1) > 1) throw new DOMException("", "QuotaExceededError");
  return put.call(this, row);
};"""
LITTLE_ROOM = """navigator.storage.estimate = async () => ({ quota: 5e6, usage: 4e6 });"""


def pieces(visitor: Visitor) -> int:
    """How many pieces of sound the browser has stored."""
    return int(
        visitor.driver.execute_async_script(
            """const [done] = arguments;
            indexedDB.open("vibevoice-recordings", 1).onsuccess = ({ target: { result } }) => {
              if (!result.objectStoreNames.contains("pieces")) return done(0);
              const asked = result.transaction("pieces").objectStore("pieces").count();
              asked.onsuccess = () => (result.close(), done(asked.result));
            };"""
        )
    )


def stores_all(visitor: Visitor) -> None:
    """What the page gave to the browser's storage is in it, however slow the disk is: transactions
    end in their order."""
    visitor.driver.execute_async_script(script("store_all"))


def comes_again(visitor: Visitor, server: Server) -> None:
    """The tab is closed without a question, once the browser has stored what it was given, and the
    page is opened in another."""
    stores_all(visitor)
    first = visitor.driver.current_window_handle
    visitor.driver.switch_to.new_window("tab")
    other = visitor.driver.current_window_handle
    visitor.driver.switch_to.window(first)
    visitor.driver.close()
    visitor.driver.switch_to.window(other)
    visitor.opens(server)


def test_take_leaves_the_browser_only_once_it_is_done_or_deleted(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    pairs = [[state, event] for state in sorted(STATES) for event in sorted(EVENTS)]
    found = worked_out(visitor, "states.js", "given.map((one) => the.after(...one))", pairs)
    after = {(state, event): to for (state, event), to in zip(pairs, found, strict=True)}
    assert set(found) <= STATES
    gone = {(state, event) for (state, event), to in after.items() if state != to == "gone"}
    assert gone == {(state, "deleted") for state in STATES - {"gone"}}
    assert [pair for pair, to in after.items() if pair[0] != to == "done"] == [("sent", "done")]
    for state in ("recording", "waiting", "sending", "kept"):  # of a tab that is no more
        assert after[state, "found"] == "kept"
    assert after["sending", "refused"] == after["sent", "failed"] == "kept"
    assert after["sent", "lacking"] == "kept"
    assert after["kept", "send"] == after["sent", "restarted"] == "waiting"


def test_kept_talk_is_the_job_of_its_session_only_if_that_has_every_word(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)

    def ends(job: str = "a job", keeps: bool = True, **metadata: float) -> str:
        summary = {"metadata": {"duration": 10.0, **metadata}}
        talk = {"keeps": keeps, "captions": {"job": job, "summary": summary}}
        return str(worked_out(visitor, "states.js", "the.endOf(given, 10.3)", talk))

    assert ends() == ends(recognized_s=9.9) == ends(keeps=False) == "made"
    assert ends(recognized_s=8.0) == ends(recognized_s=0.0) == ends(duration=9.0) == "ended"
    assert ends(job="") == "ended", "it took another session"
    assert ends(job="", keeps=False) == "captioned"


def test_kept_talk_is_not_listed_beside_its_job(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    takes: list[dict[str, str]] = [
        {"source": "captions", "state": state, **part}
        for part in ({}, {"part": ""}, {"part": "a job"})
        for state in ("recording", "kept", "sent", "done")
    ]
    found = worked_out(visitor, "states.js", "given.map(the.isListed)", takes)
    assert found == [True] * 4 + [True, True, False, False] * 2


def test_recording_of_a_closed_tab_is_offered_and_sent_at_the_next_visit(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.records()
    comes_again(visitor, server)
    visitor.sees(".side h2", "Only in this browser")
    visitor.sees(".job[data-state=kept] .how", "not sent")
    visitor.js(LEAVES)
    assert visitor.js("return leaves()"), "it is stored"
    visitor.sees(".job .pick", "Recording 2").click()
    visitor.sees(".player .round[aria-label=Play]")
    visitor.until("document.querySelector('audio').duration > 0.5", "it can be listened to")
    assert visitor.findings() == []
    visitor.sees(".job .again", "Save the audio")
    visitor.sees(".head button", "Transcribe it").click()
    visitor.sees("#main .title", "scripted")
    (job,) = server.jobs()
    assert job["duration"] > 0.5
    visitor.comes_back_until(lambda: pieces(visitor) == 0, "the browser has forgotten it")


def test_recording_of_a_tab_closed_while_it_was_sent_is_one_job(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(script("hold_answers")):
        visitor.opens(server)
    visitor.js("holds.submit = true")
    visitor.records(1)
    visitor.sees(".recording button", "Stop").click()
    (job,) = wait_until(server.jobs, "the service has it")
    comes_again(visitor, server)
    visitor.sees(".job[data-state=kept] .again", "Send").click()
    visitor.sees("#main .title", "scripted")
    assert [one["id"] for one in server.jobs()] == [job["id"]]


def test_recording_whose_key_another_had_is_sent_under_a_new_one(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.js(refused_at_first("POST", 1, 422, "idempotency_key_reused"))
    visitor.records(1)
    visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "scripted")
    assert visitor.js("return window.refused") == 1


def test_recording_of_a_closed_tab_is_deleted_only_after_a_question(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.records(1)
    comes_again(visitor, server)
    visitor.sees("[aria-label^='Delete Recording']").click()
    visitor.sees("dialog[open] button", "Keep it").click()
    visitor.sees("[aria-label^='Delete Recording']").click()
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("h1", "Who said what")
    wait_until(lambda: pieces(visitor) == 0, "its sound is gone, too")
    assert server.jobs() == []


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
def test_recording_of_a_killed_browser_is_offered_at_the_next_visit(
    tmp_path: Path, server: Server
) -> None:
    microphone = new_file(tmp_path / "spoken.wav", spoken())
    first = Visitor(microphone, tmp_path / "profile")
    first.opens(server)
    first.records(3)
    first.is_killed()
    (tmp_path / "profile/SingletonLock").unlink(missing_ok=True)
    second = Visitor(microphone, tmp_path / "profile")
    try:
        second.opens(server)
        second.sees(".job[data-state=kept] .how", "not sent")
        second.sees(".job .again", "Send").click()
        second.sees("#main .title", "scripted")
        assert server.jobs()[0]["duration"] > 1
    finally:
        second.driver.quit()


def test_second_tab_leaves_a_recording_to_the_tab_that_records(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.records(1)
    first = visitor.driver.current_window_handle
    visitor.driver.switch_to.new_window("tab")
    visitor.opens(server)
    visitor.sends_tone("talk.wav", 2)
    visitor.sees(".job[data-state=done] .name", "talk.wav")
    assert "Recording 2" not in visitor.text()
    visitor.driver.switch_to.window(first)
    visitor.sees(".recording button", "Stop").click()
    visitor.sees(".job[data-state=done] .name", "Recording 2")
    assert len(server.jobs()) == 2


def test_changed_token_lays_the_door_over_a_recording_that_goes_on_without_a_reload(
    visitor: Visitor,
) -> None:
    with Server(visitor.folder / "before", token=TOKEN) as server:
        port = server.port
        visitor.opens(server)
        visitor.signs_in(TOKEN)
        visitor.js("window.same = true")
        visitor.records()
    other = TOKEN[::-1]
    with Server(visitor.folder / "after", port=port, token=other) as server:
        visitor.sees(".door", "The recording goes on")
        assert visitor.findings() == []
        visitor.js(LEAVES)
        assert not visitor.js("return leaves()")
        visitor.signs_in(TOKEN)
        visitor.sees(".door .trouble")
        visitor.signs_in(other)
        visitor.until("document.querySelector('.door') === null", "it is open")
        visitor.sees(".recording button", "Stop").click()
        visitor.sees("#main .title", "scripted")
        assert visitor.js("return window.same"), "the page was not loaded again"
        jobs = server.client.get("/v1/jobs", headers={"Authorization": f"Bearer {other}"}).json()
        assert jobs["jobs"][0]["duration"] > 2


def test_recording_is_stopped_at_the_door_and_sent_after_signing_in(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(token=TOKEN)
    visitor.opens(server)
    visitor.signs_in(TOKEN)
    visitor.records(1)
    visitor.js(f"sessionStorage.setItem('vibevoice-token', '{TOKEN[::-1]}')")
    visitor.comes_back_until(lambda: visitor.all(".door") != [], "the token is not valid")
    assert visitor.findings() == []
    visitor.sees(".door button", "Stop recording").click()
    visitor.until("!document.querySelector('.door .notice')", "the microphone is off")
    visitor.signs_in(TOKEN)
    visitor.sees("#main .title", "scripted")
    assert jobs_of(server, TOKEN)[0]["duration"] > 0.5


def test_refused_option_is_shown_and_the_next_try_has_the_new_one(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(engine="moonshine")
    visitor.opens(server)
    visitor.sees(".status", "on this computer")
    visitor.sees(".options summary", "Options").click()
    number = visitor.sees(".options input[type=number]")
    number.send_keys("50")
    visitor.records(1)
    visitor.sees(".recording button", "Stop").click()
    visitor.sees(".job[data-state=failed] .how", "num_speakers")
    visitor.sees(".options[open] label .trouble", "from 1 to 20")
    assert visitor.findings() == []
    visitor.js(LEAVES)
    assert not visitor.js("return leaves()"), "it is nowhere else"
    number.send_keys(CONTROL, "a", CONTROL, "2")  # cleared alone, the next drawing undoes it
    visitor.sees(".job .again", "Try again").click()
    visitor.sees("#main .title", "moonshine")


@pytest.mark.parametrize("storage", [NO_STORAGE, FULL_SOON], ids=["none", "full"])
def test_recording_that_the_browser_cannot_store_is_warned_of_and_sent(
    storage: str, visitor: Visitor, server: Server
) -> None:
    with visitor.before(storage):
        visitor.opens(server)
    visitor.records()
    visitor.sees(".recording .notice", "This browser stores no more")
    visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "scripted")
    assert server.jobs()[0]["duration"] > 1


def test_storage_that_will_soon_be_full_is_said_while_it_is_not(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.js(LITTLE_ROOM)
    visitor.sees(".intake button", "Live captions").click()
    visitor.sees("#main .notice", "room for about 0 minutes more")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")


def lines(visitor: Visitor) -> list[str]:
    found: list[str] = visitor.js(
        "return [...document.querySelectorAll('.row .said')].map((one) => one.textContent)"
    )
    return found


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_captions_go_on_with_the_next_start_of_a_service(how: str, visitor: Visitor) -> None:
    with Server(visitor.folder / "before") as server:
        port = server.port
        goes_live(visitor, server)
        visitor.sees(".row .said", "w")
        if how == "killed":
            server.process.kill()
    visitor.sees(".title", "The audio is recorded")
    before = lines(visitor)
    assert before
    with Server(visitor.folder / "after", port=port) as server:
        visitor.sees(".title", "Listening")
        wait_until(lambda: len(lines(visitor)) > len(before) + 1, "more lines")
        visitor.presses(".talking button", "Stop")
        visitor.sees(".title", "only in this browser")
        assert lines(visitor)[: len(before) - 1] == before[:-1]
        times = visitor.js(
            "return [...document.querySelectorAll('.row .at')].map((one) => one.textContent)"
        )
        assert times == sorted(times)


def third_session(visitor: Visitor, server: Server) -> None:
    """Has captions of a service whose sessions are short, until the third begins."""
    goes_live(visitor, server)
    visitor.until("window.sockets.length > 2", "the third session")
    visitor.sees(".title", "Listening")


def is_one_job(visitor: Visitor, server: Server) -> dict[str, Any]:
    """What was said is in the list once, as a job of the service, and not in the browser."""
    visitor.comes_back_until(lambda: pieces(visitor) == 0, "the browser has forgotten it")
    wait_until(lambda: len(visitor.all(".job")) == 1, "it is in the list once")
    (job,) = server.jobs()
    return job


def test_kept_talk_of_several_sessions_is_in_the_list_once(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(live_longest="4s")
    visitor.keeps_talks(server)
    third_session(visitor, server)
    visitor.presses(".talking button", "Stop")
    visitor.sees("#main .title", "scripted")
    assert is_one_job(visitor, server)["duration"] > 6


UNREACHABLE = """window.WebSocket = class extends WebSocket {
  constructor(url, ...given) {
    super(window.cut ? String(url).replace("/v1/live", "/nowhere") : url, ...given);
    (window.lines ??= []).push(this);
  }
};"""
"""No service answers a live session that begins or goes on while `cut` is true."""


def test_kept_talk_whose_line_was_cut_for_longer_than_live_grace_is_in_the_list_once_with_its_name(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(live_grace="0.2s", job_retention="1h")
    visitor.keeps_talks(server)
    visitor.js(UNREACHABLE)
    visitor.sees(".intake button", "Live captions").click()
    visitor.sees(".row .said", "w")
    visitor.js("window.cut = true; lines[0].close(4000)")
    (begun,) = wait_until(server.jobs, "its session is a job")
    assert begun["name"].startswith("Live ")
    visitor.sees(".title", "The audio is recorded")
    visitor.js("window.cut = false")
    visitor.sees(".title", "Listening")
    visitor.presses(".talking button", "Stop")
    job = is_one_job(visitor, server)
    assert job["id"] != begun["id"]
    assert job["duration"] > begun["duration"]


def test_kept_talk_whose_words_were_not_recognized_is_sent_as_a_recording(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(live_timeout=0.2, scripted_hear=0.5)
    visitor.keeps_talks(server)
    visitor.sees(".intake button", "Live captions").click()
    visitor.sees("#main .notice", "could not be recognized")
    visitor.presses(".talking button", "Stop")
    visitor.sees("#main .title", "scripted")
    assert "No speech" not in visitor.text()
    job = is_one_job(visitor, server)
    assert server.transcript(job["id"])["segments"]


def test_session_at_its_limit_is_followed_by_the_next_one(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(live_longest="4s")
    third_session(visitor, server)
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    seconds = visitor.js("return document.querySelectorAll('.row .at').length")
    assert seconds >= 3
    last = str(visitor.js("return [...document.querySelectorAll('.row .at')].at(-1).textContent"))
    assert last >= "0:06", "a line of the third, by the clock of the talk"
    everything = json.loads(downloaded(visitor, "Everything"))
    assert [one["text"] for one in everything["segments"]] == lines(visitor)
    assert everything["segments"][-1]["start_time"] >= 6


def test_next_session_begins_behind_the_lines_of_the_last_one_and_not_in_hours_of_silence(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    line = {"text": "Yes.", "start_time": 1.0, "end_time": 2.5, "speaker": "Speaker_1"}
    final = {"type": "final", "piece": 0, "turn": 0, "segment": line}
    shown = {**line, "text": "I would", "start_time": 3.0, "end_time": 4.0, "flags": ["unheard"]}
    broken = {**final, "piece": 1, "segment": shown}
    both = [line, shown]

    def told(expression: str, *events: object) -> Any:
        started = "given.reduce(the.after, the.NOTHING)"
        return worked_out(visitor, "captions.js", expression.replace("TOLD", started), events)

    def summary(**metadata: float) -> dict[str, object]:
        return {"type": "summary", "transcript": {"segments": both, "metadata": metadata}}

    assert told("the.toldUntil(TOLD, 2)", final) == 2.5, "the service has not said that yet"
    assert told("the.toldUntil(TOLD, 5390)", final) == 5390
    assert told("the.toldUntil(TOLD, 3)", final, broken) == 3
    ended = (final, broken, summary(duration=60, recognized_s=3))
    assert told("the.toldUntil(TOLD, 0)", *ended) == 3
    assert told("the.segmentsOf(the.continued(TOLD, 3))", *ended) == both, "nothing goes away"
    assert told("the.toldUntil(TOLD, 0)", summary(duration=60)) == 60
    joined = told("the.segmentsOf(the.after(the.continued(TOLD, 2.5), given[0]))", final)
    found = [(one["start_time"], one["end_time"], one["speaker"]) for one in joined]
    assert found == [(1.0, 2.5, "Speaker_1"), (3.5, 5.0, "Speaker_3")]


def test_names_and_terms_of_the_options_reach_a_live_session(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(engine="moonshine")
    visitor.opens(server)
    visitor.sees(".status", "on this computer")
    visitor.js(
        """window.sent = [];
        const { send } = WebSocket.prototype;
        WebSocket.prototype.send = function (data) {
          if (typeof data === "string") sent.push(JSON.parse(data));
          return send.call(this, data);
        };"""
    )
    visitor.sees(".options summary", "Options").click()
    visitor.sees(".options label", "Names").find_element("css selector", "input").send_keys("Nagg")
    visitor.sees(".intake button", "Live captions").click()
    visitor.sees(".title", "Listening")
    begin: dict[str, Any] = visitor.js("return sent[0]")
    assert (begin["hotwords"], "prompt" in begin) == ("Nagg", False)
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")


def test_talk_of_a_closed_tab_is_offered_with_its_lines(visitor: Visitor, server: Server) -> None:
    goes_live(visitor, server)
    visitor.sees(".row .said", "w")
    comes_again(visitor, server)
    visitor.sees(".job .pick", "Live 2").click()
    visitor.sees(".row .said", "w")
    visitor.sees(".player .round[aria-label=Play]")
    visitor.sees(".head button", "Transcribe it again").click()
    visitor.sees("#main .title", "scripted")


def test_hundred_minutes_of_a_recording_are_one_file_from_the_storage(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    made = """const [count, done] = arguments;
    const app = document.querySelector("script[type=module]").src;
    import(app.replace("app.js", "storage.js")).then(async ({ Sound }) => {
      const sound = Object.assign(new Sound("long"), { type: "audio/webm" });
      for (let at = 0; at < count; at += 1) await sound.add(new Int16Array(80).fill(at));
      const samples = new Int16Array(await (await sound.file("long")).arrayBuffer());
      const right = samples.every((one, i) => one === Math.floor(i / 80));
      await sound.drop();
      done([sound.seconds, samples.length, right]);
    });"""
    seconds = 6000
    found = visitor.driver.execute_async_script(made, seconds)
    assert found == [seconds, 80 * seconds, True]
    assert pieces(visitor) == 0


def test_recording_without_a_service_is_kept_and_sent_once_it_is_there(visitor: Visitor) -> None:
    with Server(visitor.folder / "before") as server:
        port = server.port
        visitor.opens(server)
        visitor.records()
    visitor.sees(".banner", "does not answer")
    visitor.sees(".recording button", "Stop").click()
    visitor.sees(".job", "Recording 2")
    with Server(visitor.folder / "after", port=port) as server:
        visitor.sees("#main .title", "scripted")
        assert len(server.jobs()) == 1


@pytest.fixture
def owners(visitor: Visitor, start_server: StartServer) -> tuple[Server, dict[str, str]]:
    """A service with two owners, and their tokens."""
    issuer = TokenIssuer(visitor.folder / "tokens")
    tokens = {name: issuer.create(name)[0] for name in ("anna", "berta")}
    return start_server(token_keys=issuer.keys.public, voice_engine="scripted"), tokens


def jobs_of(server: Server, token: str) -> list[dict[str, Any]]:
    response = server.client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    found: list[dict[str, Any]] = response.raise_for_status().json()["jobs"]
    return found


@pytest.mark.parametrize("storage", ["", NO_STORAGE], ids=["stored", "in the tab only"])
def test_recording_is_hidden_while_another_is_signed_in_and_sent_when_its_owner_is_again(
    storage: str, visitor: Visitor, owners: tuple[Server, dict[str, str]]
) -> None:
    server, tokens = owners
    with visitor.before(storage):
        visitor.records_as(server, tokens["anna"])
    visitor.js(
        f"sessionStorage.setItem('vibevoice-token', '{'x' * 40}');"
        "document.querySelector('.recording .main').click()"
    )
    visitor.sees(".door")
    visitor.is_in(tokens["berta"])
    assert "Recording 2" not in visitor.text()
    visitor.js(LEAVES)
    assert not visitor.js("return leaves()"), "it is nowhere else"
    visitor.is_in(tokens["anna"])
    visitor.sees("#main .title", "scripted")
    assert (len(jobs_of(server, tokens["anna"])), jobs_of(server, tokens["berta"])) == (1, [])


def test_conversation_is_hidden_while_another_is_signed_in(
    visitor: Visitor, owners: tuple[Server, dict[str, str]]
) -> None:
    server, tokens = owners
    visitor.opens(server)
    visitor.is_in(tokens["anna"])
    visitor.sees(".intake button", "Conversation").click()
    visitor.only_types()
    visitor.sees(".typed input").send_keys("a secret\ue007")
    visitor.sees(".utterance .words", "a secret")
    visitor.is_in(tokens["berta"])
    visitor.sees(".intake button", "Conversation").click()
    visitor.only_types()
    assert "a secret" not in visitor.text()
    visitor.js(LEAVES)
    assert not visitor.js("return leaves()"), "the first is nowhere else"
    visitor.is_in(tokens["anna"])
    visitor.sees(".intake button", "Conversation").click()
    visitor.sees(".utterance .words", "a secret")


HOLDS_ABOUT = """window.holds = true;
const { fetch } = window;
window.fetch = async (...given) => {
  const asked = String(given[0]?.url ?? given[0]).includes("/v1/page/about");
  while (asked && window.holds) await new Promise((resolve) => setTimeout(resolve, 50));
  const answer = await fetch(...given);
  const sent = (given[1]?.method ?? given[0]?.method) === "POST";
  while (sent && window.holdsSent) await new Promise((resolve) => setTimeout(resolve, 50));
  return answer;
};"""


def is_not_told_who_is_in(visitor: Visitor, server: Server, token: str) -> None:
    """Opens the page with a token, and again with `HOLDS_ABOUT`."""
    visitor.opens(server)
    visitor.is_in(token)
    with visitor.before(HOLDS_ABOUT):
        visitor.driver.refresh()
    visitor.sees(".page[data-ready=yes]")


def test_recording_begun_before_the_owner_was_known_is_offered_to_nobody_else(
    visitor: Visitor, owners: tuple[Server, dict[str, str]]
) -> None:
    server, tokens = owners
    is_not_told_who_is_in(visitor, server, tokens["anna"])
    visitor.records(1)
    visitor.js("window.holds = false")
    visitor.sees(".status .quiet", "On this computer")
    comes_again(visitor, server)
    visitor.is_in(tokens["berta"])
    visitor.sends_tone("other.wav", 1)
    visitor.sees(".job[data-state=done] .name", "other.wav")
    assert "Recording 2" not in visitor.text()
    visitor.is_in(tokens["anna"])
    visitor.sees(".job[data-state=kept] .how", "not sent")


def test_file_that_is_sent_while_it_is_learnt_who_is_signed_in_is_shown_under_its_name(
    visitor: Visitor, owners: tuple[Server, dict[str, str]]
) -> None:
    server, tokens = owners
    is_not_told_who_is_in(visitor, server, tokens["anna"])
    visitor.js("window.holdsSent = true")
    visitor.sends_tone("early.wav", 1)
    wait_until(lambda: jobs_of(server, tokens["anna"]), "it is sent")
    visitor.js("window.holds = false")
    visitor.sees(".status .quiet", "On this computer")
    visitor.js("window.holdsSent = false")
    visitor.sees(".job[data-state=done] .name", "early.wav")


def test_talk_is_not_captioned_for_another_who_signs_in(visitor: Visitor) -> None:
    first, second = (TokenIssuer(visitor.folder / name) for name in ("first", "second"))
    anna, berta = first.create("anna")[0], second.create("berta")[0]
    with Server(visitor.folder / "one", token_keys=first.keys.public) as server:
        port = server.port
        visitor.opens(server)
        visitor.is_in(anna)
        visitor.js("localStorage.setItem('vibevoice-keeps-talks', 'true')")
        visitor.sees(".intake button", "Live captions").click()
        visitor.sees(".row .said", "w")
    with Server(visitor.folder / "two", port=port, token_keys=second.keys.public) as server:
        visitor.sees(".door", "The recording goes on")
        visitor.is_in(berta)
        visitor.sees(".job .pick", "Live 2").click()
        visitor.sees(".title", "The audio is recorded")
        assert lines(visitor) == []
        visitor.presses(".talking button", "Stop")
        visitor.until("!document.body.textContent.includes('Live 2')", "it is hidden")
        assert jobs_of(server, berta) == []
        assert pieces(visitor) > 0


GAP = """const { put } = IDBObjectStore.prototype;
IDBObjectStore.prototype.put = function (row) {
  const fails = this.name === "pieces" && [2, 3].includes(row.number);
  if (fails) throw new DOMException("", "QuotaExceededError");
  return put.call(this, row);
};
const app = document.querySelector("script[type=module]").src;
const [done] = arguments;
import(app.replace("app.js", "storage.js")).then(async ({ Sound }) => {
  const head = { id: "gap", type: "audio/webm", rate: 0 };
  const sound = Object.assign(new Sound(head.id), head);
  for (let at = 0; at < 8; at += 1) await sound.add(new Uint8Array([at]));
  const found = await (await Sound.found(head)).file("gap");
  done([...new Uint8Array(await found.arrayBuffer())]);
});"""


def test_pieces_behind_a_gap_in_the_storage_are_found(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    assert visitor.driver.execute_async_script(GAP) == [0, 1, 4, 5, 6, 7]


LATE_END = """window.WebSocket = class extends WebSocket {
  #end = false;
  #waiting = [];
  late(hear) {
    return (event) => {
      const text = typeof event.data === "string" ? event.data : "";
      if (text.includes('"type":"summary"')) this.#end = window.ends = true;
      if (!this.#end || window.goes) return hear(event);
      this.#waiting.push(() => hear(event));
      window.go = () => ((window.goes = true), this.#waiting.forEach((one) => one()));
    };
  }
  set onmessage(hear) { super.onmessage = this.late(hear); }
  set onclose(hear) { super.onclose = this.late(hear); }
};"""


def test_what_is_said_after_the_service_ended_the_session_is_kept_when_it_is_stopped(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(live_longest="2s")
    visitor.keeps_talks(server)
    visitor.js(LATE_END)
    visitor.sees(".intake button", "Live captions").click()
    visitor.until("window.ends", "the service ends the session")
    visitor.until("document.querySelector('.talking .time').textContent >= '0:05'", "more is said")
    visitor.presses(".talking button", "Stop")
    visitor.js("window.go()")
    visitor.sees("#main .title", "scripted")
    assert max(job["duration"] for job in server.jobs()) > 4


def test_talk_of_a_closed_tab_that_was_sent_still_has_its_audio_and_is_sent_again(
    visitor: Visitor, server: Server
) -> None:
    goes_live(visitor, server)
    visitor.sees(".row .said", "w")
    comes_again(visitor, server)
    visitor.sees(".job .again", "Send").click()
    visitor.sees(".job[data-state=done] .pick", "Live 2")
    visitor.comes_back_until(lambda: pieces(visitor) == 0, "the browser has forgotten it")
    (job,) = server.jobs()
    server.client.delete(f"/v1/jobs/{job['id']}").raise_for_status()
    visitor.js(
        "[...document.querySelectorAll('.job .pick')]"
        ".find((one) => one.textContent.includes('in this browser')).click()"
    )
    visitor.until("document.querySelector('audio').duration > 0.5", "it can be listened to")
    visitor.sees(".head button", "Transcribe it again").click()
    visitor.sees("#main .title", "scripted")
    assert server.jobs()[0]["duration"] == job["duration"]


UNREADABLE = """const app = document.querySelector("script[type=module]").src;
const [done] = arguments;
import(app.replace("app.js", "storage.js")).then(async ({ Sound }) => {
  const sound = new Sound("unreadable");
  const pieces = [0, 1, 2].map((at) => new Blob([new Uint8Array([at])]));
  pieces[1].arrayBuffer = async () => { throw new DOMException("", "NotReadableError"); };
  for (const piece of pieces) await sound.add(piece);
  done([...new Uint8Array(await (await sound.file("x")).arrayBuffer())]);
});"""


def test_piece_that_cannot_be_read_costs_none_that_come_later(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    assert visitor.driver.execute_async_script(UNREADABLE) == [0, 2]


def test_options_of_a_found_recording_are_its_own_and_no_others(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(engine="moonshine")
    visitor.opens(server)
    visitor.sees(".status", "on this computer")
    visitor.sees(".options summary", "Options").click()
    visitor.sees(".options input[type=number]").send_keys("50")
    visitor.records(1)
    comes_again(visitor, server)
    visitor.sees(".job[data-state=kept] .how", "not sent")
    visitor.sends_tone("other.wav", 1)
    visitor.sees(".job[data-state=done] .name", "other.wav")
    visitor.sees(".job .again", "Send").click()
    visitor.sees(".job[data-state=failed] .how", "num_speakers")
    visitor.sees(".job .again", "Try again").click()
    visitor.sees("#main .title", "moonshine")


def test_options_of_one_person_are_not_those_of_the_next(
    visitor: Visitor, owners: tuple[Server, dict[str, str]]
) -> None:
    server, tokens = owners
    visitor.opens(server)
    visitor.is_in(tokens["anna"])
    visitor.sees(".options summary", "Options").click()
    visitor.sees("#language").find_element("css selector", "option[value=de]").click()
    visitor.sees(".options summary", "1 set")
    visitor.is_in(tokens["berta"])
    assert "1 set" not in visitor.text()


SOON = """const { setTimeout: wait } = window;
window.setTimeout = (work, ms, ...given) => wait(work, ms === 60000 ? 1000 : ms, ...given);"""


def test_talk_ends_where_the_service_does_not_answer_any_more(visitor: Visitor) -> None:
    with Server(visitor.folder / "stopped") as server:
        goes_live(visitor, server)
        visitor.sees(".row .said", "w")
        visitor.js(SOON)
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            visitor.presses(".talking button", "Stop")
            visitor.sees(".title", "only in this browser")
            assert lines(visitor)
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
