"""A spoken conversation on the page, in a real browser with a microphone that hears a file."""

import json
from collections.abc import Iterator

import pytest
from browser_visitor import ESCAPE, Visitor, script
from service_process import Server, StartServer, wait_until
from test_page import TOKEN, opened

LONG = "This is a long answer that goes on and on, so that there is time to do something. " * 16
LONG = LONG.strip()


@pytest.fixture(scope="module", autouse=True)
def _listens(browser: Visitor) -> Iterator[None]:
    with browser.before(script("listen")):
        yield


def begins(visitor: Visitor, server: Server, button: str = "Start") -> None:
    visitor.opens(server)
    visitor.sees(".intake button", "Conversation").click()
    visitor.sees(".starting button", button).click()
    visitor.sees(".talking[data-state=live]")


def says(visitor: Visitor, text: str) -> None:
    visitor.sees(".typed input").send_keys(text + "\ue007")


def waits_for_sound(visitor: Visitor, wanted: bool) -> None:
    """Waits until something is heard, or nothing."""
    wait_until(lambda: visitor.js("return loud()") is wanted, f"loud: {wanted}")


def hears(visitor: Visitor, seconds: float) -> None:
    """Waits until so much more sound has come out of the loudspeaker, by its own clock."""
    until_s = visitor.js("return ear.context.currentTime") + seconds
    visitor.until(f"ear.context.currentTime > {until_s}", f"{seconds} s of sound")


def lines(visitor: Visitor) -> list[list[str]]:
    """Who said what, of all that is over."""
    found: list[list[str]] = visitor.js(
        """return [...document.querySelectorAll(".utterance[data-open=no]")].map(
          (one) => [one.dataset.who, one.querySelector(".words").textContent]);"""
    )
    return found


def cut_answers(visitor: Visitor) -> list[str]:
    """The answers of which not all was heard."""
    return [text for who, text in lines(visitor) if who == "machine" and text.endswith("…")]


def stops(visitor: Visitor) -> None:
    visitor.presses(".talking button", "Stop")


def test_speech_is_answered_aloud_and_interrupts_the_answer(
    visitor: Visitor, talks: Server
) -> None:
    begins(visitor, talks)
    visitor.sees(".talking [aria-label='Loudness of your voice']")
    visitor.sees(".title", "You hear synthetic speech (scripted)")
    visitor.sees(".talking", "The voice is synthetic.")
    visitor.sees("[data-who=person][data-open=no] .words", "w")
    waits_for_sound(visitor, True)
    visitor.sees("[data-who=machine] .words", "You said:")
    visitor.sees("[data-who=machine] .stages", "pause")
    assert visitor.findings() == []
    visitor.sees("[data-who=machine] .who", "interrupted")  # by what is said next
    wait_until(lambda: len(lines(visitor)) >= 4, "it goes on")
    cut = wait_until(lambda: cut_answers(visitor), "one is interrupted before its end")
    assert all("You said:".startswith(text.rstrip("… ")[:9]) for text in cut)
    stops(visitor)
    visitor.sees(".title", "Ended.")
    assert visitor.findings() == []
    assert talks.client.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.slow
def test_keypress_ends_answer_and_text_where_heard_and_conversation_can_be_downloaded(
    visitor: Visitor, talks: Server
) -> None:
    begins(visitor, talks, "Only type")
    says(visitor, LONG)
    waits_for_sound(visitor, True)
    hears(visitor, 1.5)  # some words of some twenty seconds
    visitor.sees(".typed input").send_keys(ESCAPE)
    waits_for_sound(visitor, False)
    visitor.sees("[data-who=machine] .who", "interrupted by you")
    (_, asked), (_, heard) = lines(visitor)
    assert asked == LONG
    assert f"You said: {LONG}".startswith(heard.rstrip("… "))
    assert 5 < len(heard) < len(LONG) * 0.7
    says(visitor, LONG)
    waits_for_sound(visitor, True)
    hears(visitor, 1.0)
    visitor.sees("#main").send_keys(" ")
    waits_for_sound(visitor, False)
    wait_until(lambda: len(lines(visitor)) == 4, "both sides, twice")
    visitor.types("Short.")
    stops(visitor)
    visitor.sees(".head button", "Download").click()
    visitor.js(
        """window.saved = [];
        URL.createObjectURL = (blob) => (blob.text().then((text) => saved.push(text)), "#");"""
    )
    for ending in ("txt", "srt", "json"):
        visitor.sees("#formats button", f".{ending}").click()
        visitor.sees(".head button", "Download").click()
    wait_until(lambda: len(visitor.js("return saved")) == 3, "all three")
    text, subtitles, whole = visitor.js("return saved")
    assert "] Machine (repeat): You said: Short." in text
    assert "-->" in subtitles
    assert '"speaker": "Speaker_1"' in whole


@pytest.mark.slow
def test_kept_conversation_is_a_transcript_of_two_speakers(visitor: Visitor, talks: Server) -> None:
    begins(visitor, talks, "Only type")
    visitor.sees(".talking label", "Keep as a transcript").click()
    visitor.types("Hello there.")
    visitor.is_a_phone()
    assert visitor.findings() == []
    stops(visitor)
    visitor.sees(".lanes .name, .row .name", "Machine (repeat)")
    assert visitor.rows() == 2
    (job,) = talks.client.get("/v1/jobs").json()["jobs"]
    talks.client.delete(f"/v1/jobs/{job['id']}")


def test_conversation_with_refused_microphone_is_typed_and_shows_errors_and_disconnection(
    visitor: Visitor, talks: Server
) -> None:
    visitor.opens(talks)
    visitor.sees(".intake button", "Conversation").click()
    visitor.sees(".starting", "synthetic voice")
    visitor.sees(".starting .notice", "--llm auto")
    assert visitor.findings() == []
    visitor.sees("option", "high").click()
    visitor.sees("label:nth-child(1) option:nth-child(2)", "repeat").click()
    visitor.js(script("refuse_microphone"))
    visitor.js(script("know_sockets"))
    visitor.sees(".starting button", "Start").click()
    visitor.sees(".notice", "Allow it beside the address")
    visitor.types("Hello.")
    gone = json.dumps({"type": "error", "error": {"message": "It is gone.", "code": "gone"}})
    visitor.js("sockets[0].onmessage({data: arguments[0]})", gone)
    visitor.sees(".trouble", "It is gone.")
    assert visitor.findings() == []
    visitor.types("Again.")
    assert visitor.driver.find_elements("css selector", ".trouble") == []
    visitor.js("sockets[0].close(4000)")
    visitor.sees(".trouble", "broke")
    visitor.sees(".starting button", "Start again")


def test_conversation_begun_again_after_a_disconnection_has_what_was_said_before(
    visitor: Visitor, talks: Server
) -> None:
    visitor.has_typed(talks)
    visitor.js("sockets[0].close(4000)")
    visitor.sees(".trouble", "broke")
    visitor.only_types()
    visitor.types("After.")
    stops(visitor)
    said = ["Before.", "You said: Before.", "After.", "You said: After."]
    visitor.sees(".head button", "Download").click()
    assert [text.strip() for _, text in lines(visitor)] == said
    visitor.js(
        """window.saved = [];
        URL.createObjectURL = (blob) => (blob.text().then((text) => saved.push(text)), "#");"""
    )
    visitor.sees("#formats button", ".txt").click()
    visitor.sees(".head button", "Download").click()
    visitor.sees("#formats button", ".json").click()
    wait_until(lambda: len(visitor.js("return saved")) == 2, "both")
    assert all(text in whole for whole in visitor.js("return saved") for text in said)


def test_typed_words_that_never_reach_the_service_are_still_there(
    visitor: Visitor, talks: Server
) -> None:
    visitor.has_typed(talks)
    visitor.js("sockets[0].send = () => {}")
    says(visitor, "Into the void.")
    visitor.sees("[data-who=person][data-open=yes] .words", "Into the void.")
    visitor.js("sockets[0].close(4000)")
    visitor.only_types()
    visitor.types("After.")
    said = ["Before.", "You said: Before.", "Into the void.", "After.", "You said: After."]
    assert [text.strip() for _, text in lines(visitor)] == said


def test_what_is_typed_and_not_sent_stays_after_a_break_and_while_another_is_shown(
    visitor: Visitor, talks: Server
) -> None:
    def typed() -> str:
        return str(visitor.sees(".typed input").get_property("value"))

    visitor.has_typed(talks)
    visitor.sees(".typed input").send_keys("Not sent")
    visitor.js("sockets[0].close(4000)")
    visitor.sees(".starting")
    assert typed() == "Not sent"
    says(visitor, " yet.")
    assert typed() == "Not sent yet."
    visitor.js("document.querySelector('.back').click()")
    visitor.sees(".intake button", "Conversation").click()
    visitor.only_types()
    assert typed() == "Not sent yet."
    visitor.sees(".typed button").click()
    visitor.sees("[data-who=machine][data-open=no] .words", "You said: Not sent yet.")
    assert typed() == ""


@pytest.mark.slow
def test_conversation_without_tts_is_announced_and_text_only(
    visitor: Visitor, start_server: StartServer
) -> None:
    server = start_server(voice_engine="none", token=TOKEN)
    visitor.driver.get(opened(server, TOKEN))
    visitor.sees(".intake button", "Conversation").click()
    visitor.sees(".starting .notice", "answers are text only")
    visitor.sees(".starting button", "Only type").click()
    visitor.sees(".title", "No TTS voice")
    visitor.types("Hello there.")
    assert visitor.js("return document.querySelector('[role=log]').ariaLive") == "polite"
    assert TOKEN not in visitor.js("return performance.getEntries().map((one) => one.name).join()")


def test_conversation_script_is_fetched_only_once_the_conversation_is_opened(
    visitor: Visitor, talks: Server
) -> None:
    visitor.opens(talks)
    fetched = "return performance.getEntriesByType('resource').map((one) => one.name).join()"
    assert "/conversation/" not in visitor.js(fetched)
    visitor.sees(".intake button", "Conversation").click()
    visitor.sees(".starting")
    assert "/conversation/" in visitor.js(fetched)


STALLS = """window.stalls = false;
[window.appended, window.sockets] = [0, []];
window.WebSocket = class extends WebSocket {
  constructor(...given) { super(...given); window.sockets.push(this); }
  get bufferedAmount() { return window.stalls ? 48000 * 4 / 3 * 12 : super.bufferedAmount; }
  send(data) {
    if (data.includes("input_audio_buffer.append")) window.appended += 1;
    super.send(data);
  }
};"""
"""A connection that takes nothing more while `stalls` is true, with 12 s before that."""


def test_what_is_said_while_the_connection_is_slow_is_sent_and_what_is_not_is_said(
    visitor: Visitor, talks: Server
) -> None:
    with visitor.before(STALLS):
        begins(visitor, talks)
    visitor.until("window.appended > 0", "it listens")
    visitor.js("window.stalls = true")
    visitor.sees("#main .notice", "The connection is slow")
    before = visitor.js("return window.appended")
    visitor.until(f"window.appended > {before + 25}", "a second of speech more")
    assert visitor.findings() == []
    visitor.js("window.stalls = false")
    visitor.until("!document.body.textContent.includes('The connection is slow')", "it is quick")
    visitor.js("window.stalls = true; sockets[0].close(4000)")
    visitor.sees("#main .notice", "The last 12 seconds of what you said did not reach the service")
    visitor.sees(".trouble", "broke")
    assert visitor.findings() == []
