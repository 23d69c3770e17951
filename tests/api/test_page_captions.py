"""Live captions on the page, in a real browser with a microphone that hears a file."""

import json
from typing import Any

import pytest
from browser_visitor import ENTER, Visitor, script
from page_actions import LIVE, PLACE, captions, goes_live, worked_out
from service_process import Server, wait_until

GONE = json.dumps(
    {"type": "error", "code": "live_gone", "message": "It is gone.", "hint": "Try later."}
)


def stands_still(visitor: Visitor) -> bool:
    """Whether nothing was recorded while more than a second of sound went by."""
    time = "return document.querySelector('.talking .time').textContent"
    at, played = visitor.js(time), visitor.js("return elsewhere.currentTime")
    visitor.until(f"elsewhere.currentTime > {played} + 1.2", "more than a second of sound")
    return bool(visitor.js(time) == at)


@pytest.mark.slow
def test_live_captions_pause_reconnect_and_are_transcribed_again(
    visitor: Visitor, server: Server
) -> None:
    goes_live(visitor, server)
    visitor.sees(".talking [aria-label=Loudness]")
    visitor.sees(".tail p", "w")
    visitor.sees(".row .said", "w")
    visitor.sees("[role=log][aria-live=polite] p", "Speaker 0: w")
    visitor.until("document.querySelector('meter').value > 0", "it is as loud as something")
    assert visitor.findings() == []
    visitor.js("sockets[0].close(4000)")
    captions(visitor, 2)
    assert visitor.js("return sockets.length") == 2, "it came again by itself"
    visitor.presses(".talking button", "Pause")
    visitor.sees(".title", "Paused")
    visitor.sees("#said", "Paused")
    visitor.sees(".tail", "")
    visitor.js("window.elsewhere = new AudioContext()")
    wait_until(lambda: stands_still(visitor), "its last pieces are written, and no more come")
    visitor.presses(".talking button", "Resume")
    captions(visitor)
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    assert visitor.findings() == []
    visitor.sees(".job .name", "Live 2")
    visitor.sees(".player .round[aria-label=Play]").click()
    wait_until(lambda: visitor.js(PLACE)[0] > 0.3, "its own sound is heard")
    visitor.sees(".head button", "Transcribe it again").click()
    visitor.sees("#main .title", "2 speakers · scripted")
    job = server.jobs()[0]
    assert job["duration"] == pytest.approx(
        visitor.js("return document.querySelector('audio').duration")
    )
    visitor.sees(".job .pick", "only in this browser").click()
    visitor.sees("[aria-label^='Discard Live']").click()
    visitor.sees("#sure-talk .danger").click()
    wait_until(lambda: "only in this browser" not in visitor.text(), "it is gone")


def test_silent_microphone_is_reported_in_captions_and_in_a_recording(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(script("silent_microphone")), visitor.before(script("passing_time")):
        visitor.opens(server)
    visitor.sees(".intake button", LIVE).click()
    visitor.sees("#main .notice[role=status]", "No audio from this microphone")
    assert visitor.findings() == []
    visitor.presses(".talking button", "Stop")
    title = visitor.sees(".title", "only in this browser").text
    assert "speaker" not in title, "nobody spoke"
    visitor.sees(".intake button", "Record").click()
    visitor.sees(".recording meter[value]")  # it listens
    visitor.js("pass(3001)")
    visitor.sees("#main .notice[role=status]", "No audio from this microphone")


def test_kept_captions_are_a_job_that_can_be_played_and_whose_speakers_can_be_named(
    visitor: Visitor, slow: Server
) -> None:
    visitor.opens(slow)
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".talking label", "Keep as a transcript").click()
    visitor.sees(".row .said", "w")
    visitor.presses(".talking button", "Stop")
    visitor.sees("#main .title", "scripted")  # as it was captioned: nothing is heard again
    (job,) = slow.jobs()
    assert job["state"] == "done"
    visitor.sees(".job .name", "Live 2")
    assert "only in this browser" not in visitor.text()
    visitor.sees(".player .round[aria-label=Play]").click()
    wait_until(lambda: visitor.js(PLACE)[0] > 0.1, "its sound is at hand")
    visitor.all(".row .name")[0].click()
    visitor.sees("dialog[open] #called").send_keys("Clov", ENTER)
    visitor.sees(".lane", "Clov")
    assert visitor.findings() == []


@pytest.mark.slow
def test_live_captions_ended_by_an_error_leave_a_whole_recording_that_can_be_transcribed(
    visitor: Visitor, server: Server
) -> None:
    def recorded_s() -> int:
        minutes, seconds = visitor.sees(".talking .time").text.split(":")
        return 60 * int(minutes) + int(seconds)

    goes_live(visitor, server)
    captions(visitor)
    before = wait_until(recorded_s, "a second is recorded")
    visitor.js("sockets[0].onmessage({data: arguments[0]})", GONE)
    visitor.sees(".trouble", "Try later.")
    assert recorded_s() >= before, "what was captioned is kept"
    visitor.sees(".title", "The audio is recorded")
    visitor.is_a_phone()
    assert visitor.findings() == []
    at = recorded_s()
    wait_until(lambda: recorded_s() > at, "it is recorded")
    at = recorded_s()
    visitor.presses(".talking button", "Stop")
    visitor.sees(".head button", "Transcribe it again").click()
    visitor.sees("#main .title", "2 speakers · scripted")
    assert server.jobs()[0]["duration"] >= at


def test_overload_notice_ends_with_the_captions_and_their_download_menu_fits_a_phone(
    visitor: Visitor, server: Server
) -> None:
    goes_live(visitor, server)
    visitor.sees(".tail p", "w")
    visitor.js(script("overloaded"), "partials_late", "The service is overloaded.")
    visitor.sees("#main .notice", "overloaded")
    visitor.presses(".talking button", "Stop")
    visitor.sees(".title", "only in this browser")
    visitor.sees(".row .said", "w")
    assert "overloaded" not in visitor.js("return document.querySelector('#main').innerText")
    visitor.is_a_phone()
    visitor.sees(".choice [popovertarget]").click()
    boxes = visitor.js(
        """return [...document.querySelectorAll("#formats button")].map((one) => {
          const { left, right, height } = one.getBoundingClientRect();
          return [left, innerWidth - right, height];
        })"""
    )
    assert min(min(box[:2]) for box in boxes) >= 0, "the menu is in the window"
    assert max(box[2] for box in boxes) < 45, "each of its words in a line"


NEVER_AGAIN = """const { setTimeout } = window;
window.setTimeout = (work, ms, ...more) => setTimeout(work, ms === 30000 ? 1e9 : ms, ...more);"""
"""What was refused is not tried again by itself: on a busy machine half a minute is soon over."""


def test_captions_that_end_by_an_error_while_paused_stay_paused_and_go_on_when_resumed(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(NEVER_AGAIN):
        goes_live(visitor, server)
    visitor.sees(".title", "Listening")
    visitor.presses(".talking button", "Pause")
    visitor.sees(".title", "Paused")
    visitor.js("sockets[0].onmessage({data: arguments[0]})", GONE)
    visitor.sees(".trouble", "Try later.")
    visitor.sees(".title", "Paused")
    visitor.presses(".talking button", "Resume")
    visitor.sees(".trouble button", "Try again").click()
    captions(visitor)
    assert visitor.all(".trouble") == []


def test_refused_microphone_is_shown_with_a_remedy(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.js(script("refuse_microphone"))
    visitor.sees(".intake button", LIVE).click()
    visitor.sees(".intake .trouble[role=alert]", "Allow it beside the address")
    assert visitor.findings() == []


def test_revised_speakers_change_caption_lines_already_shown(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    line = {"type": "final", "turn": 0, "segment": {"speaker": "Speaker_0", "text": "Me?"}}
    partial = {"type": "partial", "turn": 1, "piece": 2, "text": "Me to", "stable": "Me"}
    revised = {"type": "speakers_revised", "speakers": {"1": "Speaker_1"}}
    told = [{**line, "piece": 0}, {**line, "piece": 1}, {**partial, "tail": "o"}, revised]

    def captions(made: str, told: list[dict[str, Any]]) -> Any:
        expression = f"{made}(given.reduce(the.after, the.NOTHING))"
        return worked_out(visitor, "captions.js", expression, told)

    segments = captions("the.segmentsOf", told)
    assert [one["speaker"] for one in segments] == ["Speaker_0", "Speaker_1"]
    assert captions("the.tailOf", told) == [{"piece": 2, "sure": "Me", "unsure": " to o"}]
    assert captions("the.tailOf", [*told, {"type": "turn_ended", "turn": 1}]) == []
