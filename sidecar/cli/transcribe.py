"""Commands `transcribe` and `estimate` for recordings."""

import asyncio
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import typer

from sidecar import errors
from sidecar.audio.audio_source import AudioSource
from sidecar.auth.identity import ANONYMOUS
from sidecar.cli import audio_input, backends, output
from sidecar.cli.backends import ServiceTarget, TranscribeRecording
from sidecar.cli.common_options import argument, option
from sidecar.cli.named_recordings import (
    NamedRecordings,
    normalize_stdin_names,
    open_recordings,
)
from sidecar.cli.output import (
    ProgressCallback,
    print_error_line,
    print_text,
    printable,
    report_error,
)
from sidecar.cli.request_flags import RequestFlags, request_option
from sidecar.cli.transcript_manifest import TranscriptManifest, identify
from sidecar.cli.watch_folder import FolderWatch
from sidecar.interfaces import engine_interface
from sidecar.interfaces.request_options import OPTION_IGNORED, parse_options
from sidecar.transcripts import transcript_formats
from sidecar.transcripts.transcript import Transcript

AT_ONCE = 4
"""Maximum of recordings at a service: one is uploaded while another is transcribed."""

Bar = Callable[[str], AbstractContextManager[ProgressCallback]]


@dataclass(frozen=True, slots=True)
class TranscribeCommandOptions:
    """Options of the command; `None` if not given."""

    files: list[Path] | None = argument(
        None, "Recordings, folders of them, or - for standard input.", metavar="FILE"
    )
    format: str = option(
        "text", "What to write", "--format", "-f", choices=transcript_formats.FORMATS
    )
    output: Path | None = option(
        None,
        "Write one file per recording to this folder, instead of all to stdout.",
        "--output",
        "-o",
        metavar="DIR",
    )
    watch: Path | None = option(
        None, "Transcribe recordings as they arrive in this folder, until Ctrl-C.", metavar="DIR"
    )
    resume: bool = option(
        False, "Skip recordings whose transcripts --output has, and resume submitted jobs."
    )
    at_once: int = option(AT_ONCE, "Submit up to N recordings at once.", metavar="N", min=1)
    _: KW_ONLY
    target: ServiceTarget = field(default_factory=ServiceTarget)
    request: RequestFlags = field(default_factory=RequestFlags)  # type: ignore[valid-type]

    @property
    def options(self) -> dict[str, str]:
        """Return the fields of a request that the options set."""
        # Subtitles are cut by word times.
        cut = True if self.format in transcript_formats.SUBTITLES else None
        given = asdict(self.request)
        given |= {
            "words": cut if given["words"] is None else given["words"],
            # Several recordings run after the user's other jobs; only a running service has others.
            "priority": "batch" if self.target.server is not None and self.many else None,
        }
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in given.items()
            if value is not None
        }

    @property
    def many(self) -> bool:
        """Return whether there are several recordings, so that the user does not wait for the next
        one."""
        files = self.files or ()
        return self.watch is not None or len(files) > 1 or any(map(Path.is_dir, files))


@contextmanager
def progress_bars() -> Iterator[Bar]:
    """Yield a function that opens progress bars with the time left; without a terminal they show
    nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda label: nullcontext(lambda stage, done, total: None)
        return
    from rich import progress as rich
    from rich.console import Console

    with rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True, soft_wrap=True),  # lines of texts stay whole
        transient=True,
        # Output to the same terminal appears above the bars; other output is not redirected.
        redirect_stdout=sys.stdout.isatty(),
    ) as shown:

        @contextmanager
        def bar(label: str) -> Iterator[ProgressCallback]:
            task, stage_shown = shown.add_task(label, total=None), ""

            def report_progress(stage: str, done: float, total: float | None) -> None:
                nonlocal stage_shown
                if stage != stage_shown:
                    stage_shown = stage
                    description = label if stage == "running" else f"{label} ({stage})"
                    shown.reset(task, total=total, description=description)
                shown.update(task, completed=done, total=total)

            try:
                yield report_progress
            finally:
                shown.remove_task(task)

        yield bar


def run(options: TranscribeCommandOptions) -> int:
    """Transcribe recordings: who said what, and when.

    Works with a running service, or without one by the engine of VIBEVOICE_ENGINE. A folder stands
    for its recordings, and - for one on standard input, of up to VIBEVOICE_MAX_UPLOAD_MB. With
    --watch the command runs until Ctrl-C: it writes each transcript beside its recording (or to
    --output), and moves recordings that it cannot transcribe to the folder `failed` with the
    reason. --watch and --resume continue interrupted work.

    --output names the transcript of `talk.m4a` `talk.srt` (that of `talk.wav` besides it
    `talk-2.srt`), --watch names it `talk.m4a.srt`, as `talk.wav` may arrive later. The folder's
    hidden file `.vibevoice-asr.jsonl` says of which content each transcript is. So a transcript
    replaces only an unedited one of the same recording; all other files are kept, and it gets a
    number.

    Examples:

    * `vibevoice-asr transcribe interview.mp3`
    * `vibevoice-asr transcribe a.wav b.wav --format vtt --output subtitles`
    * `vibevoice-asr transcribe recordings --output transcripts --resume`
    * `vibevoice-asr transcribe --watch inbox --format srt`
    * `curl -s https://example.org/talk.mp3 | vibevoice-asr transcribe -`
    * `vibevoice-asr transcribe call.ogg --format json --server http://127.0.0.1:8765`
    * `vibevoice-asr transcribe play.wav --hotwords "Nagg, Nell" --prompt "Beckett" --speakers 2`
    """
    options = replace(options, output=output.named_file(options.output))
    if bool(options.files) == (options.watch is not None):
        message = (
            "Missing argument 'FILE'." if options.watch is None else "--watch goes without FILE."
        )
        raise typer.BadParameter(message)
    transcript_formats.formatter_of(options.format)
    if options.resume and options.output is None:
        raise errors.SettingsInvalid(
            "--resume skips recordings whose transcripts exist, but transcripts are not "
            "written to files.",
            hint="Name the folder with --output.",
        )
    if options.watch is not None and not options.watch.is_dir():
        raise errors.SettingsInvalid(
            f"There is no folder {options.watch}.", hint="Create it, or name another with --watch."
        )
    if options.output is not None:
        _make_output_folder(options.output, options.format)
    if options.watch is not None:
        return asyncio.run(transcribe_arrivals(options, options.watch))
    files = normalize_stdin_names(options.files or ())
    return asyncio.run(_run_named(options, files))


def _make_output_folder(folder: Path, fmt: str) -> None:
    """Create the folder of --output, unless it is there.

    Raises:
        errors.SettingsInvalid: it is a file, or has the name of one.
    """
    if folder.suffix.lower()[1:] in audio_input.TRANSCRIPT_ENDINGS and not folder.is_dir():
        raise errors.SettingsInvalid(
            f"--output names a folder for the transcripts; '{folder}' is the name of a file.",
            hint=f"Name a folder, or write one transcript by: --format {fmt} > '{folder}'",
        )
    folder.mkdir(parents=True, exist_ok=True)


async def transcribe_arrivals(options: TranscribeCommandOptions, folder: Path) -> int:
    """Transcribe what arrives in a folder, until cancelled; return the exit code."""
    async with backends.open_backend(options.target, options.options, leave=True) as transcribe:
        to = options.output or folder
        watch = FolderWatch(folder, to, options.format, transcribe, _at_once(options))
        return await watch.run()


async def _run_named(options: TranscribeCommandOptions, files: Sequence[Path]) -> int:
    async with open_recordings(files) as opens:
        return await _run(options, files, opens)


async def _run(
    options: TranscribeCommandOptions, named: Sequence[Path], opens: NamedRecordings
) -> int:
    files = audio_input.expand_folders(named)
    manifest, pairs = None, [(path, "") for path in files]
    if options.output is not None:
        manifest = TranscriptManifest(options.output, options.format)
        if options.resume:
            files = [path for path in files if not manifest.has_transcript(path)]
        if not files:
            return 0
        manifest.check_writable()
        pairs = manifest.reserve_names(files)
    with progress_bars() as bar:
        async with backends.open_backend(
            options.target, options.options, opens, options.resume
        ) as transcribe:
            batch = _TranscriptionBatch(options, transcribe, bar, manifest, opens.settle)
            try:
                failed = await batch.run(pairs)
            except asyncio.CancelledError:  # Ctrl-C
                if len(pairs) > 1:
                    batch.report_interruption(len(pairs))
                raise
    attended = sys.stderr is not None and sys.stderr.isatty()
    if options.output is not None and len(pairs) > 1 and (failed or attended):
        print_error_line(f"{len(pairs) - failed} written, {failed} failed.")
    return int(failed > 0)


def _at_once(options: TranscribeCommandOptions) -> int:
    return options.at_once if options.target.server is not None else 1


@dataclass
class _TranscriptionBatch:
    """Batch of recordings: several at once, with results in the order of the command line."""

    options: TranscribeCommandOptions
    transcribe: TranscribeRecording
    bar: Bar
    manifest: TranscriptManifest | None
    settle: Callable[[Path, Transcript], None]
    """`NamedRecordings.settle`."""

    def __post_init__(self) -> None:
        self._semaphore = asyncio.Semaphore(_at_once(self.options))
        self._done: list[str] = []
        self._ignored: Counter[str] = Counter()
        """How many recordings have the same notice of an option."""

    def report_interruption(self, many: int) -> None:
        """Print which of ``many`` transcripts are done, and how to go on."""
        done = f"{len(self._done)} of {many}"
        if (folder := self.options.output) is None:
            print_error_line(
                f"Interrupted: {done} transcribed. With --output DIR --resume the same command "
                "can be interrupted and goes on with the rest."
            )
            return
        if not self._done:
            print_error_line(f"Interrupted: nothing of {many} written. Run the same command again.")
            return
        again = "same command" if self.options.resume else "same command with --resume"
        print_error_line(
            f"Interrupted: {done} written to {folder}: "
            f"{engine_interface.abbreviate_names(self._done)}. "
            f"Run the {again} to go on with the rest: it skips these."
        )

    async def run(self, pairs: Sequence[tuple[Path, str]]) -> int:
        """Transcribe all recordings; return how many failed."""
        failed, many = 0, len(pairs)
        spawn = asyncio.get_running_loop().create_task
        tasks = [
            spawn(self._one(path, name, _label(path, number, many)))
            for number, (path, name) in enumerate(pairs, 1)
        ]
        left = {task: path for (path, _), task in zip(pairs, tasks, strict=True)}
        try:
            for task in tasks:
                path = left[task]
                try:
                    transcript = await task
                except errors.SidecarError as error:
                    report_error(error, about=str(path))
                    failed += 1
                except OSError as error:
                    if not output.is_name_error(error):
                        raise
                    print_error_line(f"{path}: its output cannot be written: {error.strerror}.")
                    failed += 1
                else:
                    self._show(path, transcript, many)
                del left[task]
        except asyncio.CancelledError:
            for task, path in left.items():  # they waited for one before them
                if task.done() and not task.cancelled() and task.exception() is None:
                    self._show(path, task.result(), many)
            raise
        finally:
            for message, count in self._ignored.items():
                print_error_line(f"{count} of {many} recordings: {message}")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return failed

    def _show(self, path: Path, transcript: Transcript, many: int) -> None:
        """Print what is to be said of a transcript of ``many``, and itself if it is not written."""
        for notice in transcript.notices:
            if notice.code == OPTION_IGNORED and many > 1:
                self._ignored[notice.message] += 1
            else:
                print_error_line(f"{path}: {notice.message}")
        if not transcript.segments and transcript.no_speech:
            print_error_line(f"{path}: No speech was found in this recording.")
        if self.options.output is None:
            text = transcript_formats.render_transcript(
                transcript, self.options.format, printable(path.stem)
            )
            head = many > 1 and self.options.format == "text"
            print_text(f"# {printable(path.name)}\n{text}" if head else text)
        self.settle(path, transcript)

    async def _one(self, path: Path, name: str, label: str) -> Transcript:
        recording = None
        async with self._semaphore:
            if self.options.output is not None:
                recording = await asyncio.to_thread(identify, path)
            with self.bar(label) as report_progress:
                async with self.transcribe(path, report_progress) as transcript:
                    if self.manifest is not None:
                        fmt = self.options.format
                        text = transcript_formats.render_transcript(transcript, fmt, path.stem)
                        try:
                            name = self.manifest.write(path, name, text, recording)
                        except OSError:  # it took long
                            print_text(text)
                            self.settle(path, transcript)
                            raise
                    self._done.append(name)  # before its job is deleted, which may be interrupted
        return transcript


def _label(path: Path, number: int, many: int) -> str:
    name = printable(path.name)
    return name if many == 1 else f"{number}/{many} {name}"


def _track_line(track: Mapping[str, Any]) -> str:
    """Return a line about an audio track of an estimate."""
    parts = [
        track["language"],
        printable(track["title"]),
        f"{track['channels']} channels" if track["channels"] else None,
        "default" if track["default"] else None,
    ]
    return f"track {track['track']}: {', '.join(filter(None, parts)) or 'unknown language'}"


async def estimate(
    file: Path | None = argument(None, "A recording; or give --minutes.", metavar="FILE"),
    minutes: float | None = option(None, "Minutes of audio, for want of a recording.", min=0),
    card: str | None = option(
        None,
        "Estimate VibeVoice-ASR (or --engine vibevoice-streaming) on this graphics card, by size "
        "('12GB') or name ('RTX 4090'). Neither card nor checkpoint is needed.",
    ),
    precision: str | None = request_option("precision"),
    engine: str | None = option(
        None,
        "Engine that would transcribe, as the setting of that name. With --card also "
        "'vibevoice-streaming-1.5b'.",
        metavar="NAME",
    ),
    track: int | None = request_option("track"),
    channels: str | None = request_option("channels"),
    format: str = option("text", "What to write", choices=("text", "json")),
    *,
    target: ServiceTarget,
) -> int:
    """Estimate the memory and time that a recording takes.

    The exit code is 1 if it does not fit into memory.

    Examples:

    * `vibevoice-asr estimate meeting.opus`
    * `vibevoice-asr estimate meeting.opus --engine vibevoice --precision int8`
    * `vibevoice-asr estimate meeting.opus --precision int8 --server http://127.0.0.1:8765`
    * `vibevoice-asr estimate --minutes 90 --server http://127.0.0.1:8765`
    * `vibevoice-asr estimate --card 12GB --minutes 90 --format json`
    """
    if engine is not None and target.server:
        raise typer.BadParameter("--engine goes without --server: that one has its own.")
    if (file is None) == (minutes is None):
        raise typer.BadParameter("Give a recording, or --minutes.")
    if (track is not None or channels is not None) and (file is None or card is not None):
        raise typer.BadParameter("--track and --channels go with a recording, without --card.")
    if format not in ("text", "json"):
        raise typer.BadParameter(f"--format is text or json, not '{printable(format)}'.")
    if minutes == math.inf:
        raise typer.BadParameter("--minutes is a finite number.")
    given = {"precision": precision, "card": card, "track": track, "channels": channels}
    options = {name: str(value) for name, value in given.items() if value is not None}
    source = nullcontext(None) if file is None else audio_input.open_file(file)
    with source as opened:
        if target.server:
            async with backends.client_of(target) as client:
                if opened is None:
                    answer = await client.estimate(minutes=minutes, **options)
                else:
                    with os.fdopen(os.dup(opened.fd), "rb") as recording:
                        answer = await client.estimate(recording, **options)
        else:
            answer = await _own_estimate(opened, minutes, options, engine)
    if format == "json":
        print_text(json.dumps(answer, indent=2) + "\n")
    else:
        about = f"{minutes:g} min" if file is None else printable(str(file))
        for one in answer.get("tracks", ()) if len(answer.get("tracks", ())) > 1 else ():
            print_text(f"{about}: {_track_line(one)}\n")
        for body in (answer, answer.get("smaller"), answer.get("larger")):
            if body is not None:
                print_text(f"{about}: {body['sentence']}\n")
    return 0 if answer["fits"] else 1


async def _own_estimate(
    source: AudioSource | None, minutes: float | None, options: dict[str, str], engine: str | None
) -> dict[str, Any]:
    """Return the estimate of this machine as the body of `POST /v1/estimate`; no engine is loaded
    for it."""
    from sidecar.api.transcribe_routes import EstimateAnswer, EstimateTrack
    from sidecar.gpu_memory import cards
    from sidecar.gpu_memory.streaming_memory import STREAMING_SHAPES

    card = cards.find_card(options["card"]) if "card" in options else None
    if card is not None and engine not in (None, "auto", "vibevoice", *STREAMING_SHAPES):
        raise typer.BadParameter("--card knows VibeVoice engines only.")
    audio_s, tracks, count = None if minutes is None else 60 * minutes, list[dict[str, Any]](), 1
    parsed = parse_options(options, engine_interface.DiarizationEffort.BALANCED)
    if card is not None and source is None:  # without a service: settings may lack a checkpoint
        return EstimateAnswer.render(cards.forecast_on(card, audio_s, parsed, engine))
    chosen = {"engine": engine} if engine is not None and card is None else {}
    async with backends.own_service(**chosen) as service:
        if source is not None:
            info = await service.submissions.probe(ANONYMOUS, source, parsed)
            audio_s, tracks, count = info.total_s, EstimateTrack.all_of(info.tracks), info.channels
        if card is not None:
            forecast = cards.forecast_on(card, audio_s, parsed, engine)
        else:
            forecast = service.job_engine.forecast(audio_s, service.options(options), count)
        return EstimateAnswer.render(forecast) | ({"tracks": tracks} if tracks else {})
