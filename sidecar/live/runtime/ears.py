"""What an engine hears stretches and voices with, where many sessions share it.

What goes wrong in it costs one stretch its words or one piece its label, and never another session.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from sidecar.audio import Block
from sidecar.interfaces.engine import Cancelled
from sidecar.interfaces.live import LiveOptions
from sidecar.live.runtime.context import Before
from sidecar.live.runtime.hypothesis import Hypothesis
from sidecar.live.runtime.live_speaker_labels import Vector
from sidecar.live.runtime.schedule import Urgency

log = logging.getLogger(__name__)

Hear: TypeAlias = Callable[[Block, Hypothesis | None, LiveOptions, Cancelled], Hypothesis | None]
"""What is said in a stretch, shape (samples,) at `LIVE_RATE`; the hypothesis is what was said of a
beginning of it. None once it is cancelled. Called by several threads at once. A language in the
options is to be believed, whether the client said it or the session was heard in it."""

HearBehind: TypeAlias = Callable[[Block, Before, LiveOptions, Cancelled], Hypothesis | None]
"""A `Hear` of a stretch with the one before it in front: what is said in it alone, words' times
from where it begins."""


class Encoder(Protocol):
    """Says what a voice sounds like; to several threads at once."""

    def vector(self, voice: Block) -> Vector:
        """Of one voice, shape (samples,) at `LIVE_RATE`: two of one person point the same way."""


@dataclass(frozen=True, slots=True)
class Ears:
    """``hear`` is all that there has to be. ``glimpse`` hears what goes on, where that is another
    thing than what has ended. ``behind``: hears what has ended with what was said before it, where
    the engine can. Without an ``encoder`` nobody is told apart."""

    hear: Hear
    glimpse: Hear | None = None
    behind: HearBehind | None = None
    encoder: Encoder | None = None

    def words(
        self,
        audio: Block,
        known: Hypothesis | Before | None,
        urgency: Urgency,
        options: LiveOptions,
        unwanted: Cancelled,
    ) -> Hypothesis | None:
        """What is said in a stretch, of whose beginning, or before which, something is ``known``;
        None where nobody wants it any more, or something went wrong."""
        try:
            if isinstance(known, Before):
                assert self.behind is not None
                return self.behind(audio, known, options, unwanted)
            if urgency is Urgency.PARTIAL:
                glimpse = self.glimpse or self.hear
                return glimpse(audio, known, dataclasses.replace(options, words=False), unwanted)
            return self.hear(audio, known, options, unwanted)
        except Exception:  # whatever an engine raises costs one stretch, not the others' sessions
            log.exception("a stretch of speech was not recognised")
            return None

    def voice(self, sound: Block) -> Vector | None:
        """What a voice sounds like; None where something went wrong."""
        assert self.encoder is not None
        try:
            vector = self.encoder.vector(sound)
        except Exception:  # it costs one label, not the others' sessions
            log.exception("a voice was not heard")
            return None
        return vector if np.isfinite(vector).all() and vector.any() else None
