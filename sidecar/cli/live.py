"""Command `live` and its display of live captions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

import typer

from sidecar import errors
from sidecar.cli import audio_input, output
from sidecar.cli.backends import LiveBackend, ServiceTarget, open_live_backend
from sidecar.cli.common_options import argument, option
from sidecar.cli.live_output import EVENTS, open_output
from sidecar.cli.request_flags import request_option
from sidecar.cli.shown_session import ShownSession, show_events
from sidecar.concurrency import running
from sidecar.interfaces import live_events
from sidecar.interfaces.engine_interface import ChannelMode
from sidecar.interfaces.live_options import LIVE_RATE
from sidecar.interfaces.request_options import parse_channel_names, parse_choice
from sidecar.live.sessions.event_log import NumberedEvent
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.channel_merge import STEREO, channel_names
from sidecar.transcripts.transcript import Segment, SpeakerProfile, Transcript

if TYPE_CHECKING:
    from rich.live import Live
FORMATS = (*transcript_formats.FORMATS, EVENTS)
PIPE = Path("-")
"""Name of standard input."""

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
UNKNOWN_SPEAKER = "Speaker_?"
CUT_OFF = "The service ended the session before it had all audio."
LAST_EVENTS_S = 1.0
"""Time for the last events of a session that accepts no more audio."""


@dataclass(frozen=True, slots=True)
class LiveCommandOptions:
    """Options of the command. ``source``: a recording or `PIPE`; `None`: a microphone."""

    source: Path | None = argument(
        None,
        "A recording, played in real time; '-': raw pcm16 on standard input. Default: the "
        "microphone.",
        metavar="FILE",
    )
    format: str = option(
        "text", "Write this format (jsonl: every event)", "--format", "-f", choices=FORMATS
    )
    output: Path | None = option(
        None, "Write to this file instead of stdout.", "--output", "-o", metavar="FILE"
    )
    device: str | None = option(
        None, "Record from this microphone, by number or a part of its name.", metavar="NAME"
    )
    devices: bool = option(False, "List the microphones.")
    rate: int = option(
        LIVE_RATE, "Read standard input at this sample rate.", metavar="HZ", min=8_000, max=192_000
    )
    pace: float = option(
        1.0, "Play a recording at N times real time; 0: as fast as possible.", metavar="N", min=0.0
    )
    language: str | None = request_option("language")
    diarize: bool | None = request_option("diarize")
    partials: bool | None = option(
        None, "Show partial results (default), or not.", "--partials/--no-partials"
    )
    words: bool | None = request_option("words")
    channels: str | None = option(
        None,
        "Mix the channels, or take two, each as one speaker (interleaved on standard input)",
        choices=ChannelMode,
    )
    channel_names: str | None = request_option("channel_names")
    prompt: str | None = option(
        None, "Describe the recording: topic, names, terms.", metavar="TEXT"
    )
    hotwords: str | None = request_option("hotwords")
    keep: bool = option(False, "Keep the session as a finished job of the service (with --server).")
    _: KW_ONLY
    target: ServiceTarget

    @property
    def options(self) -> dict[str, Any]:
        """Return the fields of `LiveBeginRequest` that are given."""
        unasked = True if self.format in transcript_formats.SUBTITLES else None
        as_said = "language", "diarize", "partials", "prompt", "hotwords", "channel_names"
        given = {name: getattr(self, name) for name in as_said}
        given["words"] = unasked if self.words is None else self.words
        given["keep"] = self.keep or None
        if self.keep and self.source is not None and self.source != PIPE:
            given["name"] = self.source.name.encode("utf-8", "replace").decode()
        given["channels"] = len(self.names_of_channels) or None
        return {name: value for name, value in given.items() if value is not None}

    @property
    def names_of_channels(self) -> tuple[str, ...]:
        """Return the names of both channels that are sent; none of a single one.

        Raises:
            errors.FieldInvalid: `channels` or its names are not possible.
        """
        mode = parse_choice("channels", self.channels, ChannelMode.MIX)
        names = parse_channel_names(self.channel_names, mode)
        return channel_names(0 if mode is ChannelMode.MIX else len(STEREO), names)


def line_of(segment: Segment, name: str | None = None, *, labels: bool = True) -> str:
    """Return a line of text, as in the format `text`; ``name``: the name of its speaker.

    ``labels``: speakers are labelled. A line then has its time and its speaker, `UNKNOWN_SPEAKER`
    if the label comes later.
    """
    speaker = segment.speaker
    one = Transcript((segment,), "", segment.end, "", "", diarized=labels or speaker is not None)
    if speaker is not None and name is not None:
        one = replace(one, voices=(SpeakerProfile(speaker, 0.0, name=name),))
    return transcript_formats.to_text(one, unlabelled=UNKNOWN_SPEAKER)


@contextmanager
def open_live_display(
    fmt: str,
    write: Callable[[str], None],
    *,
    shown: bool,
    labels: bool,
    channels: Sequence[str] = (),
) -> Iterator[LiveDisplay]:
    """Open the display of a session: ``write`` gets lines of `text` or events of `jsonl` for
    programs. ``labels``: speakers are labelled. ``channels``: names of both, if there are two.

    If the output is shown on a terminal, it appears there in colours, and is not written twice.
    """
    as_text = fmt == "text"
    terminal = sys.stdout if as_text and shown else sys.stderr
    if terminal is None or not terminal.isatty():
        yield LiveDisplay(fmt, write, labels)
        return
    from rich.console import Console
    from rich.live import Live

    file = terminal if as_text and shown else cast("IO[str]", _Terminal(terminal))
    console = Console(file=file)
    on_screen = sys.stdout.isatty()  # other output is not redirected
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=on_screen
    ) as live:
        fmt = "" if as_text and shown else fmt
        yield _LiveScreenDisplay(fmt, write, labels, live, channels or ("",))


class _Terminal:
    """Terminal beside another output: if it is closed, as of a command that was disowned, the
    session goes on."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        try:
            self._file.write(text)
            self._file.flush()
        except OSError:
            output.discard(self._file.fileno())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@dataclass
class LiveDisplay:
    """Output for programs: whole lines, each once it is final; none in formats of whole
    transcripts."""

    fmt: str
    write: Callable[[str], None]
    labels: bool

    def level(self, loud: float) -> None:
        """Show the current level of the audio, 0 to 1."""

    def event(self, numbered: NumberedEvent) -> None:
        """Show an event."""
        event = numbered.event
        if self.fmt == "jsonl" and not isinstance(event, live_events.InputProcessed):
            from sidecar.api.live_messages import event_message

            self.write(event_message(numbered) + "\n")
        elif self.fmt == "text" and isinstance(event, live_events.Final):
            self.write(line_of(event.segment, event.name, labels=self.labels))


@dataclass
class _LiveScreenDisplay(LiveDisplay):
    """Display for people: final lines, and below them the level and the partial text of each
    channel."""

    live: Live
    channels: Sequence[str]

    def __post_init__(self) -> None:
        self._loud, self._partials = 0.0, [""] * len(self.channels)

    def event(self, numbered: NumberedEvent) -> None:
        from rich.text import Text

        match numbered.event:
            case live_events.Partial() as partial:
                self._partials[numbered.channel or 0] = f"{partial.text} {partial.tail}".strip()
            case live_events.Final(segment=segment, name=name):
                self._partials[numbered.channel or 0] = ""
                colour = COLOURS[(segment.speaker or 0) % len(COLOURS)]
                style = colour if segment.speaker is not None else ""
                line = line_of(segment, name, labels=self.labels).rstrip("\n")
                self.live.console.print(Text(line, style=style))
            case live_events.NoticeRaised(notice) if notice.code != errors.ShuttingDown.code:
                channel = numbered.channel
                whose = "" if channel is None else f"{self.channels[channel]}: "
                self.live.console.print(Text(whose + notice.message, style="dim italic"))
        super().event(numbered)
        self._draw()

    def level(self, loud: float) -> None:
        self._loud = max(loud, self._loud * 0.7)
        self._draw()

    def _draw(self) -> None:
        from rich.text import Text

        meter = audio_input.level_meter(self._loud)
        seen = self._seen(self.live.console.width - len(meter) - 1)
        self.live.update(Text.assemble((meter, "green"), *seen), refresh=True)

    def _seen(self, width: int) -> Iterator[tuple[str, str]]:
        """Yield the end of each channel's partial text, with its style: of ``width`` characters
        each that says something gets as many."""
        said = [
            (f"{name}: " if name else "", text)
            for name, text in zip(self.channels, self._partials, strict=True)
            if text
        ]
        room = max(0, width // max(1, len(said)) - 1)
        for label, text in said:
            end = text[max(0, len(label) + len(text) - room) :]
            yield f" {label}{end}"[: room + 1], "dim"


def run(options: LiveCommandOptions) -> int:
    """Transcribe a microphone or a recording live.

    On a terminal speakers have colours, and partial results are grey on the last line. Ctrl-C
    finalises the session, with what a pipe on standard input has by then; a second Ctrl-C ends it
    at once, with what was shown. Microphones need the extra `microphone`; if it is missing, the
    command prints how to install it.

    In a pipe each line is written once it is final, with its time and the speaker as known then:
    `Speaker_?` if labels come later. `--output` and the other formats have the speakers of the end.
    `--output` writes a new file, with a number if there is one of that name, which is kept. Until
    the end it has lines of text: they are there if the command is killed.

    If the service shuts down before it has all audio, the transcript so far is written, and the
    exit code is 1. So it is if words may be missing: a line on standard error says from where on.

    Examples:

    * `vibevoice-asr live`
    * `vibevoice-asr live --devices`
    * `vibevoice-asr live --device 3 --language en --format srt --output talk.srt`
    * `vibevoice-asr live recording.wav --format jsonl --server http://127.0.0.1:8765`
    * `vibevoice-asr live call.wav --channels separate --channel-names "Agent, Caller"`
    * `arecord -q -t raw -f S16_LE -r 16000 -c 1 | vibevoice-asr live -`
    """
    if options.devices:
        output.print_text("\n".join(audio_input.devices() or ["There is no microphone."]) + "\n")
        return 0
    if options.source is not None and options.device is not None:
        raise typer.BadParameter("--device goes without FILE.")
    if options.format != "jsonl":
        transcript_formats.formatter_of(options.format)
    channels = options.names_of_channels
    if options.keep and options.target.server is None:
        raise errors.FieldInvalid(
            "--keep requires a running service: the one that this command starts ends with it.",
            hint="Name a running service with --server.",
        )
    options = replace(options, output=output.named_file(options.output))
    if options.output is not None:
        is_source = options.source and options.source.resolve() == options.output.resolve()
        if is_source or options.output.suffix.lower() in audio_input.ENDINGS:
            raise errors.SettingsInvalid(
                f"--output names a file for the transcript; '{options.output}' is the name of a "
                "recording."
            )
        output.check_writable(options.output)
    return asyncio.run(_run(options, channels))


async def _run(options: LiveCommandOptions, channels: Sequence[str]) -> int:
    ended = asyncio.Event()
    rate, audio = _audio_of(options, max(1, len(channels)), ended)
    name = options.source.stem if options.source and options.source != PIPE else "live"
    with (
        output.handle_interrupts(ended) as interrupted,
        open_output(options.output, options.format, name) as written,
    ):
        async with aclosing(audio), AsyncExitStack() as opened:
            async with output.cancelled_by(ended):
                backend = await opened.enter_async_context(
                    open_live_backend(options.target, rate, options.options)
                )
            on_stdout = options.output is None
            labels = bool(channels) or options.diarize is not False
            display = open_live_display(
                written.line_format, written.add, shown=on_stdout, labels=labels, channels=channels
            )
            with display as show:
                shown = ShownSession(show.event)
                try:
                    summary, wrong = await _listen(backend, audio, show, shown)
                except BaseException:  # such as a second Ctrl-C
                    if (so_far := shown.break_off()) is not None:
                        written.finish(so_far)
                    raise
            transcript = summary.transcript
            written.finish(transcript)  # before the service ends, which can take seconds
    for notice in transcript.notices:
        output.print_error_line(notice.message)
    if transcript.recognized_s is not None:
        output.print_error_line(f"Words may be missing from {transcript.recognized_s:.1f} s on.")
    if wrong is not None:
        output.print_error_line(wrong.detail)
    if summary.job is not None:
        output.print_error_line(f"It is kept as the job {summary.job}.")
    if sys.stderr is not None and sys.stderr.isatty():
        output.print_error_line(_summary_of(transcript))
    # Ctrl-C is the only end of a microphone, but interrupts a recording.
    if interrupted() and options.source is not None:
        return output.INTERRUPTED
    return int(wrong is not None or transcript.recognized_s is not None)


def _audio_of(options: LiveCommandOptions, channels: int, ended: asyncio.Event) -> tuple[int, Any]:
    if options.source == PIPE:
        return options.rate, audio_input.stream_stdin(options.rate, channels, ended)
    return audio_input.open_input(options.source, options.device, ended, options.pace, channels)


async def _listen(
    backend: LiveBackend,
    audio: AsyncIterator[bytes],
    display: LiveDisplay,
    shown: ShownSession,
) -> tuple[live_events.Summary, errors.SidecarError | None]:
    """Send all audio, which ends with Ctrl-C, and show the events; return the summary, and the
    error if the session ended early."""
    sending, showing = _send_audio(backend, audio, display), show_events(backend, shown)
    async with running(sending, showing) as tasks:
        sent, events = tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        sent.cancel()
        await asyncio.wait({sent})  # the audio can be closed only when nothing reads it
        failed = not sent.cancelled() and sent.exception() is not None
        if failed:  # if the session has ended, the events say why
            await asyncio.wait({events}, timeout=LAST_EVENTS_S)
        early = events.done() and (failed or sent.cancelled())
        lost: errors.SidecarError | None = None
        if not early:
            try:
                if failed:
                    sent.result()
            except errors.MicrophoneUnavailable as gone:
                lost = gone
            with suppress(errors.SessionOver):  # the events say why
                await backend.finish()
        summary, wrong = await events
        return summary, wrong or lost or (errors.SessionOver(CUT_OFF) if early else None)


async def _send_audio(
    backend: LiveBackend, audio: AsyncIterator[bytes], display: LiveDisplay
) -> None:
    async for chunk in audio:
        display.level(audio_input.loudness(chunk))
        await backend.send(chunk)


def _summary_of(transcript: Transcript) -> str:
    minutes, seconds = divmod(round(transcript.duration), 60)
    words = sum(len(segment.text.split()) for segment in transcript.segments)
    speakers = output.counted(transcript.num_speakers, "speaker")
    voices = f", {speakers}" if transcript.diarized else ""
    return f"{minutes}:{seconds:02} of audio, {output.counted(words, 'word')}{voices}."
