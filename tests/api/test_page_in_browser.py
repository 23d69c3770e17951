"""The page in a real browser, on a real service: what a person does with it.

One browser for all."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import soundfile
from browser_visitor import Visitor, script
from moonshine_voice import get_assets_path
from page_actions import HOW_MANY, LEAVES, PLACE, worked_out
from recordings import wav
from service_process import Server, StartServer, new_file, wait_until

from sidecar.interfaces.language_tags import summarize_languages


def test_recording_dropped_on_the_page_is_transcribed_played_and_searched(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees("h1", "Who said what")
    assert visitor.findings() == []
    visitor.drops("talk.wav", visitor.tone("talk.wav", 40).read_bytes())
    visitor.has_rows(40)
    visitor.sees(".job .name", "talk.wav")
    assert visitor.all(".lanes li")[1].text.split()[1] == "Speaker"
    visitor.until("document.querySelector('canvas').clientHeight > 50", "the waveform of two lanes")
    # played from a segment
    visitor.all(".row .said")[5].click()
    place = PLACE
    wait_until(lambda: visitor.js(place)[0] > 5.2, "it plays from there")
    assert visitor.js(place)[0] < 40
    visitor.until("document.querySelector('.row.now').dataset.index != 5", "the row that is heard")
    visitor.sees(".player .round[aria-label=Pause]").click()
    assert visitor.js(place)[1]
    # by keys alone, on the timeline and in the transcript
    track = visitor.one(".track")
    track.send_keys("\ue011")  # Home
    assert visitor.js(place)[0] == 0
    track.send_keys("\ue014")  # right
    assert track.get_attribute("aria-valuetext") == "5 seconds of 40 seconds"
    first = visitor.all(".row .at")[0]
    assert visitor.js("return document.querySelectorAll('.at[tabindex=\"0\"]').length") == 1
    first.send_keys("\ue015\ue015")  # down, down
    assert visitor.js("return document.activeElement.closest('.row').dataset.index") in ("2", "7")
    # searched
    said = visitor.js("return document.querySelectorAll('.said')[7].textContent")
    field = visitor.one(".search input")
    field.send_keys(said)
    visitor.sees(".found", "1 of 1")
    assert visitor.js("return CSS.highlights.get('found')?.size") == 1
    field.send_keys("zzz")
    visitor.sees(".found", "none")
    assert visitor.findings() == []
    # after a reload the page has the file no more
    visitor.driver.refresh()
    visitor.sees(".job .name", "talk.wav").click()
    visitor.sees(".player button", "Choose the file to listen")
    visitor.driver.find_element("id", "listen").send_keys(str(visitor.folder / "talk.wav"))
    visitor.sees(".player .round[aria-label=Play]")


def test_file_without_audio_is_shown_as_failed_with_the_reason_and_can_be_removed(
    visitor: Visitor, server: Server
) -> None:
    letter = new_file(visitor.folder / "letter.wav", "This is no sound at all.\n" * 99)
    visitor.opens(server)
    visitor.sends(letter)
    visitor.sees(".job[data-state=failed] .how", "not audio in a supported format")
    visitor.sees("#main .trouble", "Send wav, flac")
    assert visitor.all(".again") == [], "it would fail again"
    assert [one.text for one in visitor.all(".side h2")] == ["Failed"], "and nothing is in progress"
    assert visitor.findings() == []
    visitor.one("[aria-label='Remove letter.wav from the list']").click()
    visitor.sees("h1", "Who said what")


def test_file_that_the_browser_cannot_read_says_so_and_stops_no_other(
    visitor: Visitor, server: Server
) -> None:
    with visitor.before(
        """const send = fetch;
        const opened = new Promise((resolve) => (globalThis.open = resolve));
        globalThis.fetch = async (url, how) => {
          if (how?.method === "POST") await opened;
          return send(url, how);
        };"""
    ):
        visitor.opens(server)
    others = [visitor.tone(f"{number}.wav", 2) for number in range(2)]
    visitor.sends(*others, path := visitor.tone("moved.wav", 2))
    visitor.sees(".job[data-state=waiting] .name", "moved.wav")
    path.unlink()
    visitor.js("open()")
    visitor.sees(".job[data-state=failed]", "The browser cannot read this file")
    wait_until(lambda: len(visitor.all(".job[data-state=done]")) == 2, "the others are done")
    visitor.sees("[aria-label='Remove moved.wav from the list']").click()
    # among those of a folder that is dropped
    names = visitor.driver.execute_async_script(script("folder_with_unreadable_file"))
    assert names == [["a.wav", "b.wav"], ["bad.wav", "closed"]]


@pytest.mark.slow
@pytest.mark.parametrize("pulled", [False, True])
def test_microphone_is_recorded_and_transcribed_also_if_it_is_pulled_out(
    pulled: bool, visitor: Visitor, server: Server
) -> None:
    with visitor.before(
        LEAVES
        + """const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        const hear = async (wish) => (globalThis.heard = await open(wish));
        navigator.mediaDevices.getUserMedia = hear;"""
    ):
        visitor.opens(server)
    assert visitor.js("return leaves()"), "nothing would be lost"
    visitor.sees(".intake button", "Record").click()
    time_of = "return document.querySelector('.recording .time').textContent"
    visitor.sees(".recording .time", ":")
    wait_until(lambda: visitor.js(time_of) > "0:00", "a second")
    assert not visitor.js("return leaves()"), "the browser asks first"
    if pulled:
        visitor.js("heard.getTracks()[0].stop()")
    else:
        visitor.sees(".recording button", "Stop").click()
    visitor.sees("#main .title", "speaker")  # one or two: each second has another
    visitor.sees(".job .name", "Recording 2")
    assert visitor.all(".recording") == []
    assert visitor.js("return leaves()")


def test_discarded_recording_is_asked_about_and_not_sent(visitor: Visitor, server: Server) -> None:
    visitor.opens(server)
    visitor.sees(".intake button", "Record").click()
    visitor.sees("#main [aria-label='Discard this recording']").click()
    visitor.sees("#sure-recording button", "Keep it").click()
    visitor.has_recorded(1)
    visitor.sees("#main [aria-label='Discard this recording']").click()
    visitor.sees("#sure-recording .danger").click()
    visitor.sees(".intake button", "Record")
    visitor.sends_tone("talk.wav", 2)
    visitor.sees(".job[data-state=done] .name", "talk.wav")
    assert len(server.jobs()) == 1


def test_page_shows_where_the_engine_runs_and_its_language_and_warns_of_another_language(
    visitor: Visitor, moonshine: Server, start_server: StartServer
) -> None:
    visitor.opens(moonshine)
    visitor.sees(".status", "English, on this computer")
    visitor.sees(".drop", "an interview, in English.")
    visitor.sends_tone("clicks.wav", 2)
    visitor.sees("#main", "No speech was found")
    visitor.sees("#main .title", "0:02 · English")
    samples, rate = soundfile.read(Path(get_assets_path()) / "endgame_nagg_nell.wav", dtype="int16")
    soundfile.write(visitor.folder / "backwards.wav", samples[: 15 * rate][::-1], rate)
    visitor.sends(visitor.folder / "backwards.wav")
    visitor.sees(".job[data-state=done] .name", "backwards.wav").click()
    visitor.sees("#main .notice", "does not seem to be English")
    assert "English" not in visitor.sees("#main .title", "moonshine").text
    visitor.opens(start_server(engine="upstream", upstream="http://127.0.0.1:9"))
    visitor.sees(".status", "Sent to another server")


def test_page_offers_steering_options_only_if_the_engine_takes_them(
    visitor: Visitor, start_server: StartServer
) -> None:
    for server, shown in (
        (start_server(), ["channel"]),
        (
            start_server(engine="upstream", upstream="http://127.0.0.1:9"),
            ["speak", "Names", "channel"],
        ),
    ):
        visitor.opens(server)
        visitor.sees(".intake .quiet")  # what the engine can do is known
        engine = server.client.get("/v1/page/about").json()["engine"]
        assert engine["steerable"] is ("Names" in shown)
        labels = visitor.all(".fields label")
        found = " ".join(str(one.get_attribute("textContent")) for one in labels)
        assert [word for word in ("speak", "Names", "channel") if word in found] == shown


def call() -> bytes:
    """A wav of two channels."""
    left, right = bytes([148, 108] * 24_000), bytes([188, 188, 68, 68] * 12_000)
    both = bytes(itertools.chain(*zip(left, right, strict=True)))
    return wav(both, channels=2, rate=16_000, bits=8)


def test_channels_of_a_call_are_separated_if_the_option_is_on(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees(".options summary", "Options").click()
    visitor.sees(".options label.check", "channel").click()
    visitor.drops("call.wav", call())
    visitor.sees("#main .title", "4 speakers")
    names = "Left 1", "Left 2", "Right 1", "Right 2"  # two speakers in turn on each
    wait_until(lambda: all(name in visitor.text() for name in names), "names of channels")


def test_speakers_of_separate_channels_are_not_offered_to_be_told_apart_again(
    visitor: Visitor, server: Server
) -> None:
    for recording, speakers, offered in (
        (call(), "4 speakers", False),
        (wav(b"\x10\x20" * 64_000), "2 speakers", True),  # one channel is not separated
    ):
        server.done(recording, channels="separate")  # by another client
        visitor.opens(server)
        visitor.sees(".job .pick").click()  # the newest
        visitor.sees("#main .title", speakers)
        visitor.sees(".lane").click()
        visitor.sees("dialog[open] #called")
        assert visitor.all("dialog[open] #number") == [], "it is no matter of one speaker"
        assert bool(visitor.all(HOW_MANY)) is offered


def test_precision_is_changed_on_the_page_after_its_memory_plan_is_shown(
    visitor: Visitor, server: Server
) -> None:
    visitor.opens(server)
    visitor.sees(".status").click()
    visitor.sees(".plan", "fits: int8")
    assert visitor.findings() == []
    before = server.health()["precision"]
    other = "int8" if before == "fp32" else "fp32"
    visitor.one(f".plan input[value={other}]").click()
    visitor.sees(".precision button", f"Load {other}").click()
    visitor.sees(".facts", f"yes, in {other}")
    assert server.health()["precision"] == other
    server.client.post("/reload-model", json={"precision": before})  # others share the server


def test_languages_are_named_and_one_is_chosen_by_name(visitor: Visitor, server: Server) -> None:
    def said(expression: str, *tags: str) -> Any:
        return worked_out(visitor, "words.js", expression, tags)

    visitor.opens(server)
    lists = {(): "any language", ("de",): "German", ("af", "de", "en"): "English and 2 more"}
    for tags, words in lists.items():  # the terminal says the same
        assert said("the.languagesOf(given)", *tags) == summarize_languages(tags) == words
    assert said("the.namedLanguages(given)", "fr", "en") == [["en", "English"], ["fr", "French"]]
    voices = "en-us", "pt-br", "Ava", "kokoro_af_heart", "alloy"
    found = said("given.map(the.voiceOf)", *voices)
    assert found == ["American English", "Brazilian Portuguese", *voices[2:]]
    named = dict(said("the.namedLanguages(given)"))
    assert named["de"] == "German"
    assert all(tag != name for tag, name in named.items()), "each has a name"
    visitor.sees(".options summary").click()
    names = "return [...document.querySelectorAll('#language option')].map((one) => one.text)"
    assert visitor.js(names)[:2] == ["as it is heard", min(named.values())]
    visitor.sees("#language").send_keys("German")
    assert visitor.js("return document.querySelector('#language').value") == "de"
    visitor.sends_tone("talk.wav", 2)
    visitor.has_rows(2)
    (job,) = server.jobs()
    found = server.client.get(f"/v1/jobs/{job['id']}/transcript").json()
    assert found["metadata"]["language"] == "de"
