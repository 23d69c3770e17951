"""Transcript formats: text, SRT, WebVTT, JSON and others. Pure.

Outside the house a speaker is ``Speaker_0``, and who that is stands beside it; subtitles, which
are for viewers, show the name alone. Times are written as each format wants them, all of
them from whole milliseconds, so that no format can round to a 60th second or a 1000th millisecond.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from sidecar import errors
from sidecar.transcripts.subtitle_cues import MAX_PREFIX_COLUMNS, build_cues, to_ms
from sidecar.transcripts.transcript import Segment, Transcript
from sidecar.transcripts.word_timing import split_columns, text_columns

TranscriptFormatter = Callable[[Transcript, str], str]


def speaker_label(index: int | None) -> str:
    """The name of a speaker outside; one voice nobody asked about is the first."""
    return f"Speaker_{index or 0}"


def render_transcript(transcript: Transcript, fmt: str, name: str = "audio") -> str:
    """The transcript in a format of `FORMATS`, with a newline at the end unless it is empty.

    ``name`` is the recording's, for the formats that mention it.

    Raises:
        errors.FieldInvalid: there is no such format.
    """
    return formatter_of(fmt)(transcript, name)


def formatter_of(fmt: str) -> TranscriptFormatter:
    """The function that writes ``fmt``.

    Raises:
        errors.FieldInvalid: there is none.
    """
    try:
        return FORMATS[fmt]
    except KeyError:
        raise errors.FieldInvalid(
            f"There is no format '{fmt}'.", hint=f"Use one of: {', '.join(FORMATS)}."
        ) from None


def to_text(transcript: Transcript, name: str) -> str:
    """A line per segment; with the time and the speaker where speakers were told apart."""
    rows = []
    for one in transcript.segments:
        lead = f"[{_readable_time(one.start)}] {_speaker_prefix(transcript, one)}"
        rows.append((lead if transcript.diarized else "") + _without_line_breaks(one.text))
    return _lines(rows)


def to_json(transcript: Transcript, name: str) -> str:
    """The fields of the sidecar's answer to a transcription."""
    body = transcript_body(transcript)
    return json.dumps(body, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def transcript_body(transcript: Transcript) -> dict[str, Any]:
    """A transcript as JSON has it, here and on the sidecar's wire; times in seconds."""
    words_by = transcript.words_by
    return {
        "segments": [
            segment_body(segment, transcript.name_of(segment.speaker))
            for segment in transcript.segments
        ],
        "metadata": {
            "duration": round(transcript.duration, 3),
            "language": transcript.language,
            "model_precision": transcript.precision,
            "num_speakers": transcript.num_speakers,
            "engine": transcript.engine,
            **({"model": transcript.model} if transcript.model else {}),
            "diarized": transcript.diarized,
            "no_speech": not transcript.has_speech,
            "warnings": [
                {"code": notice.code, "message": notice.message} for notice in transcript.notices
            ],
            **({"words_by": words_by} if words_by else {}),
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
    """One segment as JSON has it; times in seconds. ``name``: who its speaker was recognised as."""
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
            for word in segment.words
        ]
        body["words_by"] = segment.words_by
    if segment.flags:
        body["flags"] = list(segment.flags)
    return body


def to_srt(transcript: Transcript, name: str) -> str:
    """SubRip: numbered cues, comma before the milliseconds; who speaks stands before the words."""
    blocks = []
    cues = build_cues(transcript, lambda one: _subtitle_prefix(transcript, one))
    for number, cue in enumerate(cues, 1):
        times = f"{_timestamp(cue.start_ms, ',')} --> {_timestamp(cue.end_ms, ',')}"
        # SubRip has no escapes; an arrow in the text would be taken for a line of times.
        text = "\n".join(cue.lines).replace("-->", "->")
        blocks.append(f"{number}\n{times}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, name: str) -> str:
    """WebVTT, with voice tags where speakers were told apart: ``<v Speaker_0>``, and for who has a
    name ``<v.Speaker_0 Nell>``, the label as a class."""
    blocks = ["WEBVTT\n"]
    for cue in build_cues(transcript):
        times = f"{_timestamp(cue.start_ms, '.')} --> {_timestamp(cue.end_ms, '.')}"
        text = _escaped("\n".join(cue.lines))
        if transcript.diarized and cue.segment.is_speech:
            label = speaker_label(cue.segment.speaker)
            called = _escaped(_without_line_breaks(transcript.name_of(cue.segment.speaker) or ""))
            text = f"<v.{label} {called}>{text}" if called else f"<v {label}>{text}"
        blocks.append(f"{times}\n{text}\n")
    return "\n".join(blocks)


def to_tsv(transcript: Transcript, name: str) -> str:
    """A header, then start and end in milliseconds, speaker (empty if unknown) and text; where
    anybody has a name, that is one column more."""
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
    """NIST's Rich Transcription Time Marked: who spoke when, in seconds, without the words."""
    file_id = "_".join(name.split()) or "audio"  # fields are told apart by spaces
    rows = []
    for segment in transcript.segments:
        start = to_ms(segment.start)
        length = to_ms(segment.end) - start
        if length <= 0 or not segment.is_speech:  # scoring tools refuse a turn of no length
            continue
        times = f"{_seconds(start)} {_seconds(length)}"
        speaker = speaker_label(segment.speaker)
        rows.append(f"SPEAKER {file_id} 1 {times} <NA> <NA> {speaker} <NA> <NA>")
    return _lines(rows)


FORMATS: Mapping[str, TranscriptFormatter] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "rttm": to_rttm,
}
"""Every format by its name; all take the transcript and the recording's name."""

SUBTITLES = ("srt", "vtt")
"""Those that are better with times of words."""


def file_extension(fmt: str) -> str:
    """The ending of a file in this format, without the dot."""
    return "txt" if fmt == "text" else fmt


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _speaker_prefix(transcript: Transcript, segment: Segment) -> str:
    """Return the speaker's prefix of a line; none for music."""
    if not segment.is_speech:
        return ""
    name = transcript.name_of(segment.speaker)
    beside = f" ({_without_line_breaks(name)})" if name else ""
    return f"{speaker_label(segment.speaker)}{beside}: "


def _subtitle_prefix(transcript: Transcript, segment: Segment) -> str:
    """The same in a subtitle: no longer than leaves room for words."""
    if not (transcript.diarized and segment.is_speech):
        return ""
    name = _without_line_breaks(transcript.name_of(segment.speaker) or "")
    name = name or speaker_label(segment.speaker)
    room = MAX_PREFIX_COLUMNS - len(": ")
    return f"{name if text_columns(name) <= room else split_columns(name, room - 1)[0] + '…'}: "


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _without_line_breaks(text: str) -> str:
    """The text without tabs and line breaks: both have a meaning in most formats."""
    return " ".join(text.split())


def _timestamp(ms: int, point: str) -> str:
    """``HH:MM:SS.mmm``, with as many digits of hours as it takes."""
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{ms // 1000:02}{point}{ms % 1000:03}"


def _readable_time(seconds: float) -> str:
    """``HH:MM:SS.t``, for people."""
    tenths = round(to_ms(seconds) / 100)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{tenths // 10:02}.{tenths % 10}"


def _seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03}"
