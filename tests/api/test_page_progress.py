"""How far recordings are, and what becomes of them with the service, as the page shows it."""

import re

import pytest
from browser_visitor import ENTER, ESCAPE, Visitor, script
from page_actions import PLACE, downloaded, goes_to, line, names, said, worked_out, writes
from service_clock import clocked_command, put_ahead
from service_process import Server, StartServer, new_file, wait_until

LONG_S = 1200
"""Of a recording that takes the slow service twenty seconds, and so is said to take some time."""


def test_silent_event_stream_does_not_hide_the_end_of_a_job(visitor: Visitor, slow: Server) -> None:
    """Nor does an answer that does not come to what else the page would know."""
    with visitor.before(script("silence_events")):
        visitor.opens(slow)
    goes_to(slow, 1)
    visitor.sends_tone("talk.wav", 20)
    visitor.until("window.silent", "nothing comes any more")
    assert visitor.rows() == 1
    goes_to(slow, None)
    visitor.has_rows(20)
    visitor.js("letGo()")


def test_progress_is_shown_also_after_reload_and_jobs_are_cancelled_and_played(
    visitor: Visitor, slow: Server
) -> None:
    visitor.opens(slow)
    goes_to(slow, 4)
    visitor.sends_tone("long one.wav", LONG_S)
    visitor.sees(".job[data-state=running] .name", "long one.wav")
    visitor.sees(".job[data-state=running] .how", " % of 20:00, about ")
    visitor.sees(".job[data-state=running] .how", " left")
    visitor.sees(".side h2", "In progress")
    visitor.sends_tone("second.wav", 45)
    visitor.sees(".job[data-state=queued] .how", "Next")
    visitor.sends_tone("third.wav", 3)
    visitor.sees(".job[data-state=queued] .name", "third.wav")  # its upload was answered
    visitor.sees(".job[data-state=running] .name", "long one.wav").click()
    wait_until(lambda: visitor.rows() == 4, "what is known by now")
    goes_to(slow, 6)
    wait_until(lambda: visitor.rows() == 6, "it grows")
    visitor.driver.refresh()
    visitor.sees(".job[data-state=running] .name", "long one.wav").click()
    wait_until(lambda: visitor.rows() == 6, "it is there again")
    goes_to(slow, 8)
    wait_until(lambda: visitor.rows() == 8, "and grows")
    numbers = "return [...document.querySelectorAll('.row')].map((one) => one.dataset.index)"
    found = visitor.js(numbers)
    assert found == [str(index) for index in range(len(found))]
    assert visitor.findings() == []
    visitor.sees("[aria-label='Cancel third.wav']").click()
    visitor.sees("#said", "third.wav was cancelled.")
    visitor.sees("[aria-label='Cancel long one.wav']").click()
    visitor.sees("#said", "long one.wav was cancelled.")
    goes_to(slow, None)
    visitor.sees(".job .name", "second.wav").click()
    visitor.has_rows(45)
    # played from what the service kept: no more of it than is heard
    visitor.sees(".player .round[aria-label=Play]")
    visitor.all(".row .said")[40].click()
    wait_until(lambda: visitor.js(PLACE)[0] > 40.2, "it plays from there")
    visitor.sees(".player .round[aria-label=Pause]").click()


@pytest.mark.slow
def test_transcript_being_read_is_not_expired_and_an_expired_one_can_be_read_and_corrected(
    visitor: Visitor, start_server: StartServer
) -> None:
    ahead_s, rest_s = 61, 5  # the rest goes by as it does, for the page, too
    keeps_s = 3 * ahead_s + rest_s
    command = clocked_command(visitor.folder, ahead_s)
    server = start_server(command=command, job_retention=f"{keeps_s}s")

    def left_s() -> dict[str, float]:
        return {one["id"]: one["expires_in"] for one in server.jobs()}

    def goes_ahead(times: int) -> None:
        for _ in range(times):
            before = left_s()
            put_ahead(server)
            wait_until(lambda before=before: far_from(before), "time has gone by")

    def far_from(before: dict[str, float]) -> bool:
        now = left_s()
        return any(abs(now.get(one, 0.0) - was) > ahead_s / 2 for one, was in before.items())

    def does_nothing() -> None:
        """The person, for longer than transcripts are kept; what they did before is over."""
        visitor.driver.execute_async_script(
            """const [ms, done] = arguments, later = requestAnimationFrame;
            later(() => later(() => done(pass(ms))));""",
            1000 * keeps_s,
        )

    with visitor.before(script("passing_time")):
        visitor.reads(server, "read.wav", 6)
    (read,) = left_s()
    # who is in the middle of a correction has the transcript kept, although nothing else happens
    line(visitor, 3).send_keys("e")
    visitor.driver.switch_to.active_element.send_keys(" half a")
    does_nothing()
    other = server.done((visitor.folder / "read.wav").read_bytes())
    goes_ahead(2)
    visitor.comes_back_until(lambda: left_s()[read] > 2 * ahead_s, "it is kept")
    goes_ahead(1)
    wait_until(lambda: other not in left_s(), "what nobody reads goes")
    assert set(left_s()) == {read}
    field = visitor.driver.switch_to.active_element
    assert field.get_attribute("value").endswith(" half a")
    visitor.sees(".storing", "3 minutes 8 seconds after it was last read or edited")
    assert visitor.findings() == []
    # it is said before it goes, and can be put off
    field.send_keys(ESCAPE)
    does_nothing()
    goes_ahead(1)
    visitor.sees(".expiry button", "Keep it longer")
    offered = visitor.one(".expiry").text
    assert re.search(r"about to delete this transcript\.\s+[01]:\d\d\s", offered)
    assert "Download it" in offered
    visitor.one(".expiry button").click()
    gone = "return document.querySelector('.expiry') === null"
    wait_until(lambda: visitor.js(gone), "it was put off")
    assert set(left_s()) == {read}
    # the service deletes it, and it stands as it stood
    does_nothing()
    goes_ahead(3)
    wait_until(lambda: not left_s(), "its time is over")
    visitor.sees("#main .notice", "does not have this transcript any more")
    visitor.sees("#main .notice", "stored in this browser")
    visitor.sees(".side h2", "Only in this browser")
    assert visitor.rows() == 6
    assert visitor.findings() == []
    writes(visitor, 3, "All of it.")
    visitor.sees("#said", "in this browser only")
    wait_until(lambda: said(visitor, 3) == "All of it.", "it is corrected")
    speaker = visitor.sees(".lane .name").text
    visitor.sees(".lane").click()
    visitor.sees("dialog[open]", "only names and lines can be changed")
    assert visitor.all("#same") == []
    visitor.sees("#called").send_keys("Nell", ENTER)
    visitor.sees("#said", f"{speaker} is called Nell now, in this browser only.")
    assert "Nell" in names(visitor)
    # also for who comes back
    visitor.driver.refresh()
    visitor.sees(".job .name", "read.wav").click()
    wait_until(lambda: visitor.rows() == 6, "the copy")
    assert said(visitor, 3) == "All of it."
    assert names(visitor)[0] == "Nell"
    assert downloaded(visitor, "Text for Word").startswith("Nell: ")
    # and one switch deletes all of them, but not under the eyes of who reads
    visitor.sees(".storing input").click()
    visitor.sees("dialog[open]", "The service no longer has 2 transcripts of them.")
    assert visitor.findings() == []
    visitor.sees("dialog[open] .danger").click()
    visitor.sees("#main .notice", "in this tab only")
    visitor.sees(".storing", "No copies are stored")
    visitor.driver.refresh()
    visitor.sees("h1", "Who said what")
    assert "read.wav" not in visitor.text()


def test_progress_remaining_time_and_queue_position_of_a_job_are_put_in_words(
    visitor: Visitor, server: Server
) -> None:
    def said(**job: object) -> str:
        return str(worked_out(visitor, "words.js", "the.stateOf(given)", job))

    def runs(total: float | None, fraction: float | None, left: float) -> str:
        progress = {"fraction": fraction, "audio_seconds_done": 0, "audio_seconds_total": total}
        return said(state="running", progress=progress, estimated_remaining_seconds=left)

    visitor.opens(server)
    assert runs(28, 0.5, 3) == "50 % of 0:28, a few seconds left"
    assert runs(395, 0.25, 80) == "25 % of 6:35, about 80 seconds left"
    assert runs(None, None, 120) == "Starting", "how long it is nobody knows yet"
    assert said(state="queued", position=0, estimated_wait_seconds=20) == (
        "Next, starts in about 20 seconds"
    )
    assert said(state="queued", position=2, estimated_wait_seconds=3) == (
        "2 recordings before it, starts in a few seconds"
    )


def test_durations_from_two_days_on_are_in_days(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    lengths_s = [0, 61, 3600, 2 * 86_400 - 60, 2 * 86_400, 30 * 86_400, 2 * 86_400 + 3600]
    said = worked_out(visitor, "words.js", "given.map(the.spoken)", lengths_s)
    assert said[:3] == ["0 seconds", "1 minute 1 second", "1 hour"]
    assert said[3:] == ["47 hours 59 minutes", "2 days", "30 days", "2 days 1 hour"]


def test_job_cancelled_in_one_tab_disappears_from_the_other(visitor: Visitor, slow: Server) -> None:
    visitor.opens(slow)
    goes_to(slow, 1)
    visitor.sends_tone("shared.wav", 3)
    visitor.sees(".job[data-state=running] .name", "shared.wav")
    first = visitor.driver.current_window_handle
    visitor.driver.switch_to.new_window("tab")
    visitor.opens(slow)
    visitor.sees(".job[data-state=running] .name", "shared.wav")
    visitor.one("[aria-label='Cancel shared.wav']").click()
    visitor.sees("h1", "Who said what")
    visitor.driver.switch_to.window(first)
    wait_until(lambda: "shared.wav" not in visitor.text(), "gone there, too")


@pytest.mark.slow
def test_restarted_service_is_waited_for_and_gets_the_recording_again(visitor: Visitor) -> None:
    hold = new_file(visitor.folder / "hold", "4")  # the job is not done when its service ends
    with Server(visitor.folder / "before", scripted_hold=hold) as server:
        port = server.port
        visitor.opens(server)
        visitor.sends_tone("kept.wav", 60)
        visitor.sees(".job[data-state=running]")
        wait_until(lambda: visitor.rows() > 2, "it grows")
    visitor.sees(".banner", "does not answer")
    with Server(visitor.folder / "after", port=port) as server:
        visitor.sees("#main .title", "2 speakers")
        wait_until(lambda: visitor.rows() == 60, "all of it")
        assert len(server.jobs()) == 1
        assert "does not answer" not in visitor.text()


@pytest.mark.slow
def test_recording_that_is_uploaded_again_after_a_restart_is_not_given_up_meanwhile(
    visitor: Visitor,
) -> None:
    hold = new_file(visitor.folder / "hold", "4")
    with Server(visitor.folder / "before", scripted_hold=hold) as server:
        port = server.port
        with visitor.before(script("hold_answers")):
            visitor.opens(server)
        visitor.sends_tone("kept.wav", 6)
        visitor.sees(".job[data-state=running]")
        visitor.js("holds.submit = true")
    with Server(visitor.folder / "after", port=port) as server:
        visitor.until("Boolean(held.submit)", "it is uploaded again")
        visitor.js("window.looks = given.list ?? 0")
        visitor.until("given.list >= looks + 2", "the page has looked since")
        visitor.js("holds.submit = false; held.submit()")
        visitor.has_rows(6)
        assert len(server.jobs()) == 1


@pytest.mark.slow
def test_refused_job_list_shows_its_error_and_not_that_the_service_does_not_answer(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees("h1", "Who said what")
    visitor.js(script("refuse_jobs"))
    visitor.sees(".banner", "The database does not work. Wait.")
    assert "does not answer" not in visitor.text()
    visitor.js("window.fetch = window.usual")
    wait_until(lambda: "database" not in visitor.text(), "it goes on")
