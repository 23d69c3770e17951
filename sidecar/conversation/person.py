"""A person's turn as it is spoken: utterances, their words, and whether all of it was heard. Pure.

A turn is one utterance or several: the ear ends one at any pause it likes, and the turn goes on
until a pause is long enough for what was said (`patience`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.conversation.history import MOST_SAID, bounded
from sidecar.conversation.options import Patience, TalkOptions
from sidecar.conversation.patience import patience
from sidecar.conversation.words import bare
from sidecar.errors import SidecarError

SPECULATE_AFTER_S = 0.1
"""Of silence words are wanted: the turn may be over."""
RECOGNISER_S = 20.0
"""A recogniser that takes longer has failed."""
MOST_UTTERANCES = 100
"""Of one turn that are kept apart; of older ones the text alone is kept."""
_SLACK_S = 0.02


@dataclass(slots=True)
class Utterance:
    """What is known of one since it ``began``: it is to be heard up to ``ended``, and was up to
    ``upto``. ``likeness``: how like its sound is what was played then; ``echo``: it is that."""

    began: float
    text: str = ""
    upto: float = float("-inf")
    ended: float | None = None
    asked: float | None = None
    likeness: float = 0.0
    echo: bool = False

    @property
    def settled(self) -> bool:
        """Its words cover all of it."""
        return self.ended is not None and self.upto >= self.ended - _SLACK_S


@dataclass(slots=True)
class Person:
    """Somebody's turn. ``since``: when the stretch of speech began that goes on or was the last;
    ``saying``: what the machine says meanwhile, or did just before, which may come back.
    ``answer``: the client wants one, by ``answer_by`` if that is given.

    Over a reply ``told`` is false: no client knows of it yet. There ``paused_at`` is since when the
    reply is held for it, ``dismissed`` that it is not held for it any more, and ``aside`` that its
    words are no interruption. ``heard_s``: so much of the reply was heard when it stopped.
    ``before``: what was said in utterances that are not kept any more.
    """

    since: float
    current: int
    speaking: bool = True
    ended: float = 0.0
    spoken_s: float = 0.0
    utterances: dict[int, Utterance] = field(default_factory=dict)
    committed: bool = False
    answer: bool = False
    answer_by: TalkOptions | None = None
    told: bool = False
    saying: str = ""
    before: str = ""
    paused_at: float | None = None
    dismissed: bool = False
    aside: bool = False
    heard_s: float = 0.0
    failure: SidecarError | None = None
    settled_at: float = 0.0

    @classmethod
    def starting(cls, utterance: int, began: float) -> Person:
        """Who begins to speak."""
        return cls(began, utterance, utterances={utterance: Utterance(began)})

    @property
    def first(self) -> int:
        """The utterance that it began with: before its first words there may have been a cough."""
        said = (number for number, one in self.utterances.items() if one.text)
        return next(said, self.current)

    @property
    def began(self) -> float:
        """When it did."""
        return self.utterances[self.first].began

    @property
    def text(self) -> str:
        """All that was said so far, without what is an echo; with it, where the client is sure that
        this is a turn."""
        texts = [
            one.text.strip() for one in self.utterances.values() if self.committed or not one.echo
        ]
        return " ".join(text for text in (self.before, *texts) if text)

    @property
    def echoed(self) -> bool:
        """Whether some of it is an echo."""
        return any(one.echo for one in self.utterances.values())

    @property
    def settled(self) -> bool:
        """Nobody speaks, and all words are known."""
        return not self.speaking and all(one.settled for one in self.utterances.values())

    def start(self, utterance: int, began: float) -> None:
        """Goes on, under the same number or another."""
        if self.speaking and utterance != self.current:  # cut, because it was long
            self.stop(self.current, began)
        self.speaking, self.current, self.since = True, utterance, began
        self.committed = self.dismissed = self.aside = False
        one = self.utterances.setdefault(utterance, Utterance(began))
        one.ended = one.asked = None
        if len(self.utterances) > MOST_UTTERANCES:
            oldest = self.utterances.pop(next(iter(self.utterances)))
            text = "" if oldest.echo else oldest.text.strip()
            self.before = bounded(f"{self.before} {text}".strip(), MOST_SAID)

    def stop(self, utterance: int, ended: float) -> None:
        """Pauses since ``ended``."""
        self.spoken_s += max(0.0, ended - self.since)
        self.speaking, self.ended = False, ended
        self.utterances[utterance].ended = ended

    def hear(self, utterance: int, text: str, upto: float) -> bool:
        """Words of it; whether they say anything new."""
        one = self.utterances.get(utterance)
        if one is None or upto < one.upto:
            return False
        changed, was_settled = one.text.strip() != text.strip(), self.settled
        one.text, one.upto = text, upto
        return changed or self.settled != was_settled

    def give_up(self, utterance: int, error: SidecarError) -> None:
        """Its words will not come: those that are there have to do."""
        one = self.utterances.get(utterance)
        if one is not None and one.ended is not None and not one.settled:
            one.upto, self.failure = one.ended, error

    def wanted(self) -> list[tuple[float, int, Utterance]]:
        """Utterances that are over as far as one knows and whose words are not asked for: since
        when they are wanted."""
        return [
            (one.ended + SPECULATE_AFTER_S, number, one)
            for number, one in self.utterances.items()
            if one.ended is not None and one.asked is None and not one.settled
        ]

    def late(self) -> list[tuple[float, int]]:
        """Utterances whose words are asked for: when that takes too long."""
        return [
            (one.asked + RECOGNISER_S, number)
            for number, one in self.utterances.items()
            if one.asked is not None and not one.settled
        ]

    def over_at(self, settings: Patience) -> float:
        """When the turn is over, if nobody goes on speaking."""
        text = self.text
        pace = len(bare(text)) / self.spoken_s if self.spoken_s > 0 else None
        return self.ended + patience(text, pace, settings)

    @property
    def recognised_s(self) -> float:
        """How long the last words took from when they were asked for."""
        asked = self.utterances[self.current].asked
        return max(0.0, self.settled_at - asked) if asked is not None else 0.0
