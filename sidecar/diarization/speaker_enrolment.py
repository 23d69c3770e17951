"""Speaker enrolment: the embedding of the one person who speaks in a clip."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar import errors
from sidecar.audio import Block
from sidecar.diarization import speaker_identification
from sidecar.diarization.diarizer import Diarizer
from sidecar.diarization.speaker_identification import embedding_of
from sidecar.diarization.speaker_models import SpeakerModels
from sidecar.transcripts.speaker_embeddings import SpeakerEmbedding

OTHER_SPEAKER_S = 1.0
"""So much of another voice and the clip is nobody's. One that is heard for less is not compared."""
MIN_CLIP_SIMILARITY = 0.3
"""The cosine between what one person says in a second or two and all that is said in the clip; of
the recordings in docs/decisions/diarization-parameters.md one second in a hundred is under it."""


def enrolment_embedding(models: SpeakerModels, blocks: Iterable[Block]) -> SpeakerEmbedding:
    """The voice of the one person who speaks in a recording at 16 kHz.

    Raises:
        errors.VoiceAbsent: nobody speaks.
        errors.VoiceTooShort: there are less than two seconds of voice.
        errors.SeveralVoices: more than one person speaks.
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
