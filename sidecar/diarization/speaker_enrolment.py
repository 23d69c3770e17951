"""Speaker enrolment: embedding of the only speaker in a clip."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar import errors
from sidecar.audio import Block
from sidecar.diarization import speaker_identification
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_identification import embedding_of
from sidecar.diarization.speaker_models import SpeakerModels
from sidecar.transcripts.transcript import SpeakerEmbedding

OTHER_SPEAKER_S = 1.0
"""Speech of a second speaker with which a clip is rejected; a local speaker with less is not
compared."""
MIN_CLIP_SIMILARITY = 0.3
"""Minimum cosine between one or two seconds of a speaker and the whole clip. In the recordings of
docs/decisions/diarization-parameters.md one second in a hundred is below it."""


def enrolment_embedding(models: SpeakerModels, blocks: Iterable[Block]) -> SpeakerEmbedding:
    """Return the embedding of the only speaker in a recording at 16 kHz.

    Raises:
        errors.VoiceAbsent: there is no speech.
        errors.VoiceTooShort: there are less than two seconds of speech.
        errors.SeveralVoices: there is more than one speaker.
    """
    diarizer = Diarizer(models)
    for block in blocks:
        diarizer.feed(block)
    diarizer.finish()
    speakers = diarizer.speakers()
    if not speakers.voices:
        raise errors.VoiceAbsent()
    person = max(speakers.voices, key=lambda one: speakers.voices[one].seconds)
    voice = speakers.voices[person]
    others = sum(turn.end - turn.start for turn in speakers.turns if turn.label != person)
    strange = any(
        seconds >= OTHER_SPEAKER_S and float(vector @ voice.vector) < MIN_CLIP_SIMILARITY
        for seconds, vector in diarizer.local_voices()
    )
    if strange or others >= OTHER_SPEAKER_S:
        raise errors.SeveralVoices()
    if voice.seconds < speaker_identification.MIN_SPEECH_S:
        raise errors.VoiceTooShort(
            f"The clip has {voice.seconds:.1f} s of speech; the minimum is "
            f"{speaker_identification.MIN_SPEECH_S:g} s."
        )
    return embedding_of(voice)
