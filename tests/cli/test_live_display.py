"""What `vibevoice-asr live` shows of two channels, and keeps of a session that ends early."""

import io
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from rich.console import Console
from rich.live import Live
from rich.text import Text

from sidecar import errors
from sidecar.cli.backends import LiveBackend
from sidecar.cli.live import (
    LiveDisplay,
    _LiveScreenDisplay,  # internal: `open_live_display` opens it only on a terminal
)
from sidecar.cli.shown_session import ShownSession, show_events
from sidecar.interfaces.live_events import (
    Final,
    NoticeRaised,
    Partial,
    SpeakersRevised,
    SpeechStarted,
    TurnEnded,
)
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.transcript import Notice, Segment

AGENT = Final(0, 0, Segment(0.5, 8.0, "A long sentence.", 0), name="Agent")
CALLER = Final(1, 1, Segment(4.0, 5.0, "Short.", 1), name="Caller")


async def nothing(*_: bytes) -> None:
    """Send or end nothing."""


async def test_session_that_ends_early_keeps_both_channels_in_order_of_time_with_names() -> None:
    async def events() -> AsyncIterator[NumberedEvent]:
        yield NumberedEvent(1, CALLER, 1)
        yield NumberedEvent(2, AGENT, 0)
        yield NumberedEvent(3, Final(3, 3, Segment(6.0, 7.0, "Again.", 1), name="Caller"), 1)
        yield NumberedEvent(4, Partial(2, 2, 8.5, 9.0, "And now", "", "we"), 0)
        yield NumberedEvent(5, Partial(5, 5, 8.6, 9.5, "No", ""), 1)
        yield NumberedEvent(6, TurnEnded(5, 8.6, 9.5, ""), 1)
        yield NumberedEvent(7, Partial(7, 7, 9.8, 10.0, "But", ""), 1)
        raise errors.ShuttingDown()

    shown = ShownSession(LiveDisplay("srt", print, labels=True).event)
    summary, wrong = await show_events(LiveBackend(nothing, nothing, events), shown)
    assert isinstance(wrong, errors.ShuttingDown)
    assert summary.transcript.duration == 10.0
    assert transcript_formats.to_text(summary.transcript).splitlines() == [
        "[00:00:00.5] Agent: A long sentence.",
        "[00:00:04.0] Caller: Short.",
        "[00:00:06.0] Caller: Again.",
        "[00:00:08.5] Agent: And now we",
        "[00:00:09.8] Caller: But",
    ]


async def test_session_that_ends_early_keeps_the_speakers_and_text_that_were_shown_last() -> None:
    async def events() -> AsyncIterator[NumberedEvent]:
        for number, event in enumerate(
            (
                SpeechStarted(0, 0.5),
                replace(AGENT, segment_number=4),
                TurnEnded(0, 0.5, 8.0, "A long sentence."),
                SpeechStarted(1, 8.5),
                Final(1, 5, Segment(8.5, 9.0, "Yes.", 0), name="Agent"),
                TurnEnded(1, 8.5, 9.0, "Yes."),
                SpeakersRevised({5: 2}, {0: "Anna", 2: "Bert"}),
                SpeechStarted(2, 9.5),
                Partial(2, 6, 9.5, 11.0, "And what", "And", "if"),
            ),
            1,
        ):
            yield NumberedEvent(number, event)
        raise errors.SessionOver()

    shown = ShownSession(LiveDisplay("srt", print, labels=True).event)
    summary, _ = await show_events(LiveBackend(nothing, nothing, events), shown)
    *lines, last = transcript_formats.to_text(summary.transcript).splitlines()
    assert lines == ["[00:00:00.5] Anna: A long sentence.", "[00:00:08.5] Bert: Yes."]
    assert last.endswith("And what if")


@pytest.mark.parametrize(("fmt", "shown"), [("text", "And what if"), ("jsonl", '"unheard"')])
async def test_words_shown_last_are_printed_as_final_if_the_session_ends_early(
    fmt: str, shown: str
) -> None:
    async def events() -> AsyncIterator[NumberedEvent]:
        yield NumberedEvent(1, SpeechStarted(0, 0.5))
        yield NumberedEvent(2, Partial(0, 0, 0.5, 2.0, "And what", "And", "if"))
        raise errors.SessionOver()

    lines: list[str] = []
    session = ShownSession(LiveDisplay(fmt, lines.append, labels=False).event)
    await show_events(LiveBackend(nothing, nothing, events), session)
    assert sum(shown in line for line in lines) == 1


def test_screen_shows_the_partial_text_of_each_channel_until_its_own_final() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Live(console=console, auto_refresh=False) as live:
        display = _LiveScreenDisplay("", print, True, live, ("Agent", "Caller"))

        def line() -> str:
            shown = live.get_renderable()
            assert isinstance(shown, Text)
            return shown.plain.strip("·")

        display.event(NumberedEvent(1, Partial(1, 1, 0.0, 1.0, "mm"), 1))
        assert line() == " Caller: mm"
        display.event(NumberedEvent(2, Partial(0, 0, 0.0, 1.0, "and " * 30 + "so", "", "on"), 0))
        own, other = line().split(" Caller: ")
        assert own.startswith(" Agent: ")
        assert own.endswith("and so on"), "the end of a long one"
        assert other == "mm"
        assert live.get_renderable().cell_len < 80
        display.event(NumberedEvent(3, CALLER, 1))
        assert line().startswith(" Agent: ")
        assert "Caller" not in line()
        display.event(NumberedEvent(4, AGENT, 0))
        assert line() == ""


def test_notice_of_one_channel_is_shown_with_its_name() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Live(console=console, auto_refresh=False) as live:
        display = _LiveScreenDisplay("", print, True, live, ("Agent", "Caller"))
        display.event(NumberedEvent(1, NoticeRaised(Notice("late", "It is late.")), 1))
        display.event(NumberedEvent(2, NoticeRaised(Notice("all", "It is for all."))))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "Caller: It is late." in shown
    assert ": It is for all." not in shown
