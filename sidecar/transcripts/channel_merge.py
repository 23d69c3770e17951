"""Transcripts of the channels of one recording, merged by time. Pure.

Speakers are numbered by channel, so that their numbers are known before the last channel is
transcribed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar.transcripts.transcript import (
    SPEAKERS_UNAVAILABLE,
    Segment,
    SpeakerEmbedding,
    SpeakerProfile,
    Transcript,
)

STEREO = "Left", "Right"


@dataclass(frozen=True, slots=True)
class TranscribedChannel:
    """Channel of a recording with the name of its speakers."""

    name: str
    transcript: Transcript


def channel_name(number: int, count: int, given: Sequence[str] = ()) -> str:
    """Return the name of channel ``number``, from 0, of ``count``: the one that was ``given``, if
    it is not empty."""
    usual = STEREO[number] if count == len(STEREO) else f"Channel {number + 1}"
    return (given[number] if number < len(given) else "") or usual


def channel_names(count: int, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of ``count`` channels, as `channel_name`."""
    return tuple(channel_name(number, count, given) for number in range(count))


def with_own_speakers(segment: Segment, first: int) -> Segment:
    """Return a segment of a channel whose speakers are numbered from ``first`` on; all speech that
    has no speaker is the first one's."""
    if segment.speaker is None and not segment.is_speech:
        return segment
    return replace(segment, speaker=first + (segment.speaker or 0))


def count_speakers(transcript: Transcript) -> int:
    """Return how many numbers the speakers of a channel take."""
    labels = [one.speaker or 0 for one in transcript.segments if one.is_speech]
    labels += [one.speaker for one in transcript.segments if one.speaker is not None]
    return max(labels, default=-1) + 1


def merge_channels(
    channels: Sequence[TranscribedChannel], *, least_speakers: int = 0
) -> Transcript:
    """Return one transcript with the segments of all channels in order of time, whose speakers have
    the names of their channels: ``Left``, or ``Left 1`` and ``Left 2``. Each channel takes at least
    ``least_speakers`` numbers of speakers, even if nobody speaks.

    An enrolled speaker that was identified keeps that name. What is not said of a channel (engine,
    language) is that of the one with the most text.
    """
    segments: list[tuple[Segment, SpeakerEmbedding | None]] = []
    voices, first = list[SpeakerProfile](), 0
    for channel in channels:
        found = channel.transcript
        prints = found.prints or (None,) * len(found.segments)
        owned = (with_own_speakers(one, first) for one in found.segments)
        segments += zip(owned, prints, strict=True)
        count = count_speakers(found)
        profiles = {one.speaker: one for one in found.voices}
        for number in range(count):
            name = channel.name if count == 1 else f"{channel.name} {number + 1}"
            profile = profiles.get(number, SpeakerProfile(number, 0.0))
            voices.append(replace(profile, speaker=first + number, name=profile.name or name))
        first += max(count, least_speakers)
    segments.sort(key=lambda one: (one[0].start, one[0].end))
    notices = dict.fromkeys(one for channel in channels for one in channel.transcript.notices)
    notices.pop(SPEAKERS_UNAVAILABLE, None)
    prints = tuple(one for _, one in segments)
    return replace(
        max((one.transcript for one in channels), key=lambda one: len(one.text)),
        segments=tuple(one for one, _ in segments),
        duration=max(one.transcript.duration for one in channels),
        diarized=True,
        notices=tuple(notices),
        voices=tuple(voices),
        prints=prints if any(prints) else (),
    )
