"""Transcript formats: text, SRT, WebVTT, JSON and others. Pure; `render_result` may use a thread.

In most formats a speaker is ``Speaker_0``, with the name beside it if there is one; text and SRT,
which are for readers, show the name alone. All formats derive times from whole milliseconds, so
that none can round to a 60th second or a 1000th millisecond.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sidecar import errors
from sidecar.transcripts.subtitle_cues import MAX_PREFIX_COLUMNS, build_cues, to_ms
from sidecar.transcripts.transcript import (
    NON_SPEECH_FLAG,
    SPEAKER_UNKNOWN_FLAG,
    Segment,
    Transcript,
    Word,
)
from sidecar.transcripts.word_timing import split_columns, text_columns

T = TypeVar("T")
TranscriptFormatter = Callable[[Transcript, str], str]
_ARROW = re.compile("(?<!-)--+>")
SHORT_RESULT = 500
"""Segments, words and hundreds of characters: about a millisecond, except as subtitles."""


async def render_result(
    segments: Iterable[Segment], render: Callable[[], T], *, subtitles: bool = False
) -> T:
    """Return what ``render`` makes of a result; in a thread if it is long or of ``subtitles``,
    whose line breaks take many times as long."""
    size = sum(1 + len(one.words) + len(one.text) // 100 for one in segments)  # edited: any length
    short = not subtitles and size <= SHORT_RESULT
    return render() if short else await asyncio.to_thread(render)


def speaker_label(index: int | None) -> str:
    """Return the label of a speaker; None has that of the first, and `segment_body` a flag."""
    return f"Speaker_{index or 0}"


def render_transcript(transcript: Transcript, fmt: str, name: str = "audio") -> str:
    """Render a transcript in a format of `FORMATS`; it ends with a newline unless it is empty.

    ``name`` is the recording's, for the formats that mention it.

    Raises:
        errors.FieldInvalid: there is no such format.
    """
    return formatter_of(fmt)(transcript, name)


def formatter_of(fmt: str) -> TranscriptFormatter:
    """Return the function that renders ``fmt``.

    Raises:
        errors.FieldInvalid: there is no such format.
    """
    try:
        return FORMATS[fmt].render
    except KeyError:
        raise errors.FieldInvalid(
            f"There is no format '{fmt}'.", hint=f"Use one of: {', '.join(FORMATS)}."
        ) from None


def to_text(transcript: Transcript, name: str = "", *, unlabelled: str | None = None) -> str:
    """Render a line for each segment; if diarized, with time and speaker, but none for music.

    ``unlabelled``: the speaker of a segment that has no label; `None`: the first one.
    """
    rows, labels = [], _text_labels(transcript)
    for one in transcript.segments:
        first = unlabelled if one.speaker is None else None
        speaker = labels.get(one.speaker) or first or speaker_label(one.speaker)
        lead = f"[{_readable_time(one.start)}] {f'{speaker}: ' if one.is_speech else ''}"
        rows.append((lead if transcript.diarized else "") + _without_line_breaks(one.text))
    return _lines(rows)


def to_json(transcript: Transcript, name: str) -> str:
    """Render the fields of the sidecar's response to a transcription."""
    body = transcript_body(transcript)
    return json.dumps(body, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def transcript_body(transcript: Transcript) -> dict[str, Any]:
    """Return a transcript as in JSON files and in the sidecar's API; times in seconds."""
    words_by, likely = transcript.words_by, transcript.language_probability
    known_s = transcript.recognized_s
    return {
        "segments": [
            segment_body(segment, transcript.name_of(segment.speaker))
            for segment in transcript.segments
        ],
        "metadata": {
            "duration": round(transcript.duration, 3),
            **({"recognized_s": round(known_s, 3)} if known_s is not None else {}),
            "language": transcript.language,
            **({"language_probability": likely} if likely is not None else {}),
            "model_precision": transcript.precision,
            "num_speakers": transcript.num_speakers,
            "engine": transcript.engine,
            **({"model": transcript.model} if transcript.model else {}),
            **({"device": transcript.device} if transcript.device else {}),
            "diarized": transcript.diarized,
            "no_speech": transcript.no_speech,
            "warnings": [
                {"code": notice.code, "message": notice.message} for notice in transcript.notices
            ],
            **({"words_by": words_by} if words_by else {}),
            **({"hotwords": [*transcript.hotwords]} if transcript.hotwords else {}),
            **({"speakers": speakers_body(transcript)} if transcript.voices else {}),
        },
    }


def speakers_body(transcript: Transcript) -> list[dict[str, Any]]:
    """Return the speakers' voice profiles as JSON, without embeddings."""
    return [
        {
            "speaker": speaker_label(one.speaker),
            "name": one.name,
            "person": one.person,
            "likeness": one.likeness,
            "voice_seconds": one.seconds,
        }
        for one in transcript.voices
    ]


def segment_body(segment: Segment, name: str | None = None) -> dict[str, Any]:
    """Return one segment as JSON; times in seconds. ``name``: its speaker's name, if known."""
    body: dict[str, Any] = {
        "speaker": speaker_label(segment.speaker),
        "start_time": round(segment.start, 3),
        "end_time": round(segment.end, 3),
        "text": segment.text,
    }
    if name is not None:
        body["name"] = name
    if segment.words:
        body["words"] = [
            {"start_time": round(word.start, 3), "end_time": round(word.end, 3), "text": word.text}
            | ({"confidence": word.confidence} if word.confidence else {})
            for word in segment.words
        ]
        body["words_by"] = segment.words_by
    if segment.confidence:
        body["confidence"] = segment.confidence
    if segment.no_speech_probability is not None:
        body["no_speech_probability"] = segment.no_speech_probability
    if segment.language:
        body["language"] = segment.language
    unknown = segment.speaker is None and segment.is_speech
    if flags := [*segment.flags, *[SPEAKER_UNKNOWN_FLAG] * unknown]:
        body["flags"] = flags
    return body


def parse_flags(on_wire: Iterable[object]) -> tuple[tuple[str, ...], bool]:
    """Return the flags of a segment from those of `segment_body`, and whether its label is that of
    a speaker."""
    said = tuple(map(str, on_wire))
    flags = tuple(flag for flag in said if flag != SPEAKER_UNKNOWN_FLAG)
    return flags, flags == said and NON_SPEECH_FLAG not in said


def to_srt(transcript: Transcript, name: str) -> str:
    """Render SubRip: numbered cues, a comma before the milliseconds, the speaker before the
    words."""
    blocks = []
    cues = build_cues(transcript, lambda one: _subtitle_prefix(transcript, one))
    for number, cue in enumerate(cues, 1):
        times = f"{_timestamp(cue.start_ms, ',')} --> {_timestamp(cue.end_ms, ',')}"
        # SubRip has no escapes; an arrow in the text would be parsed as a line of times.
        text = _ARROW.sub("->", "\n".join(cue.lines))
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, name: str, *, plain: bool = False) -> str:
    """Render WebVTT. If diarized, with voice tags: ``<v Speaker_0>``, and for a named speaker
    ``<v.Speaker_0 Nell>``, with the label as a class. A word whose confidence is low has the class
    ``doubtful``; not if it is ``plain``, and then the text of a recording that is not diarized
    stays as it is, as Whisper writes it."""
    blocks = ["WEBVTT\n"]
    for cue in build_cues(transcript):
        times = f"{_timestamp(cue.start_ms, '.')} --> {_timestamp(cue.end_ms, '.')}"
        if plain:
            text = "\n".join(cue.lines)
            text = _escaped(text) if transcript.diarized else _ARROW.sub("->", text)
        else:
            text = "\n".join("".join(map(_vtt_word, line)).strip() for line in cue.words)
        if transcript.diarized and cue.segment.is_speech:
            label = speaker_label(cue.segment.speaker)
            called = _escaped(_without_line_breaks(transcript.name_of(cue.segment.speaker) or ""))
            text = f"<v.{label} {called}>{text}" if called else f"<v {label}>{text}"
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def to_tsv(transcript: Transcript, name: str) -> str:
    """Render a header, then start and end in milliseconds, speaker (empty if unknown) and text; if
    any speaker has a name, a name column, too."""
    named = any(one.name for one in transcript.voices)
    rows = ["start\tend\tspeaker\ttext" + "\tname" * named]
    for segment in transcript.segments:
        speaker = "" if segment.speaker is None else speaker_label(segment.speaker)
        text = _without_line_breaks(segment.text)
        called = _without_line_breaks(transcript.name_of(segment.speaker) or "")
        row = f"{to_ms(segment.start)}\t{to_ms(segment.end)}\t{speaker}\t{text}"
        rows.append(f"{row}\t{called}" if named else row)
    return _lines(rows)


def to_rttm(transcript: Transcript, name: str) -> str:
    """Render NIST's Rich Transcription Time Marked: speaker turns in seconds, without words."""
    file_id = "_".join(name.split()) or "audio"  # fields are separated by spaces
    rows = []
    for segment in transcript.segments:
        start = to_ms(segment.start)
        length = to_ms(segment.end) - start
        if length <= 0 or not segment.is_speech:  # scoring tools reject a turn of no length
            continue
        times = f"{start / 1000:.3f} {length / 1000:.3f}"
        speaker = speaker_label(segment.speaker)
        rows.append(f"SPEAKER {file_id} 1 {times} <NA> <NA> {speaker} <NA> <NA>")
    return _lines(rows)


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Output format. ``render`` takes the transcript and the recording's name; ``label``: what the
    page calls it; ``by_words``: it is better with word times; ``extension``: of files, if it is not
    the name."""

    render: TranscriptFormatter
    media_type: str
    label: str
    by_words: bool = False
    extension: str = ""


_TEXT, _UTF8 = "text/plain; charset=utf-8", "; charset=utf-8"
FORMATS: Mapping[str, OutputFormat] = {
    "text": OutputFormat(to_text, _TEXT, "Text with times", extension="txt"),
    "json": OutputFormat(to_json, "application/json", "Everything"),
    "srt": OutputFormat(to_srt, f"application/x-subrip{_UTF8}", "Subtitles", by_words=True),
    "vtt": OutputFormat(to_vtt, f"text/vtt{_UTF8}", "Subtitles for the web", by_words=True),
    "tsv": OutputFormat(to_tsv, f"text/tab-separated-values{_UTF8}", "Table"),
    "rttm": OutputFormat(to_rttm, _TEXT, "Speaker turns"),
}
"""All formats by name: protocols, command line, clients and page read it."""
SUBTITLES = tuple(name for name, one in FORMATS.items() if one.by_words)


def file_extension(fmt: str) -> str:
    """Return the file extension of a format, without the dot."""
    known = FORMATS.get(fmt)
    return (known and known.extension) or fmt


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _text_labels(transcript: Transcript) -> dict[int | None, str]:
    """Return what a named speaker is called in text: the name, beside the label if others have that
    name or if it could be taken for a label."""
    names = {one.speaker: one.name for one in transcript.voices if one.name}
    shared = Counter(names.values())
    labels = dict[int | None, str]()
    for speaker, name in names.items():
        shown = _without_line_breaks(name)
        alone = shared[name] == 1 and not shown.casefold().startswith("speaker")
        labels[speaker] = shown if alone else f"{speaker_label(speaker)} ({shown})"
    return labels


def _subtitle_prefix(transcript: Transcript, segment: Segment) -> str:
    """Return the speaker's prefix of a subtitle, short enough to leave room for words."""
    if not (transcript.diarized and segment.is_speech):
        return ""
    name = _without_line_breaks(transcript.name_of(segment.speaker) or "")
    name = name or speaker_label(segment.speaker)
    room = MAX_PREFIX_COLUMNS - len(": ")
    return f"{name if text_columns(name) <= room else split_columns(name, room - 1)[0] + '…'}: "


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _vtt_word(word: Word) -> str:
    if not word.doubtful:
        return _escaped(word.text)
    said = word.text.rstrip()
    return f"<c.doubtful>{_escaped(said)}</c>{word.text[len(said) :]}"


def _without_line_breaks(text: str) -> str:
    """Replace tabs and line breaks by spaces: both have a meaning in most formats."""
    return " ".join(text.split())


def _timestamp(ms: int, point: str) -> str:
    """Return ``HH:MM:SS.mmm``, with as many digits of hours as necessary."""
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{point}{ms % 1000:03}"


def _readable_time(seconds: float) -> str:
    """Return ``HH:MM:SS.t``, for people."""
    return _timestamp(100 * round(to_ms(seconds) / 100), ".")[:-2]
