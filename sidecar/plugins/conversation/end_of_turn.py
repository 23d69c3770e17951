"""User turn and end-of-turn detection. Pure.

A turn is one utterance or several. The recognizer ends an utterance at any pause. The turn
continues until a pause is long enough for what was said (`end_of_turn_delay_s`).

A pause after a finished sentence ends the turn; a pause after "and" does not. So the delay depends
on the text so far, and is a little longer for slow speakers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from sidecar.errors import SidecarError
from sidecar.interfaces.tts_text import normalized_words, word_set
from sidecar.plugins.conversation.chat_history import truncate_utf8
from sidecar.plugins.conversation.conversation_events import ConversationOptions, EndOfTurnDelays
from sidecar.transcripts.sentence_ends import ends_sentence, needs_more
from sidecar.transcripts.transcript import join_texts

MAX_USER_TURN_BYTES = 65_536
"""Maximum size of one spoken turn in bytes of text: an hour of speech without an end."""

DEFAULT_DELAYS = EndOfTurnDelays()
AFTER_COMMA_S = 0.8
"""Delay after a comma in seconds: the sentence goes on."""
AFTER_NUMBER_S = 1.0
"""Delay in seconds after digits or a word that needs another: numbers are said in groups."""
DEFAULT_WORDS_PER_S = 2.5
"""Words per second below which a speaker is slow, and pauses for longer."""
MIN_PACE_WORDS = 4
"""Number of words from which the pace is taken into account."""
FILLERS = word_set(
    "um uh umm uhm uhh er erm ehm hmm hm eh ah äh ähm ehh hem euh heu ben pues este cioè allora "
    "えっと ええと あの えー 음 어 嗯 呃 那个"
)
"""Hesitation words."""
NEVER_FINAL_WORDS = word_set(
    "and or but because the a an if und oder aber weil dass der das ein eine einen et ou mais "
    "parce le les une des pero porque los las perché il och men и или но потому"
)
"""Words that never end a sentence, even if the recognizer puts a full stop after them."""
INCOMPLETE_WORDS = NEVER_FINAL_WORDS | word_set(
    "so when while although though than as nor unless until that which who whose to of in on at "
    "for from with without by about into like my your his her our their is are was were am i'm "
    "you're it's we're they're i i'd i'll let's maybe wenn ob als denn sondern obwohl die dem den "
    "mit von zu zum zur für auf bei nach über unter ist sind war que si quand car donc la un du "
    "de à dans avec pour sur chez y o cuando el con por en al del ma quando lo gli di per su nel "
    "della mas os uma com em что если когда на к для"
)
NUMBER_WORDS = word_set(
    "zero oh one two three four five six seven eight nine ten double triple null eins zwei drei "
    "vier fünf sechs sieben acht neun zéro deux trois quatre cinq sept huit neuf uno dos tres "
    "cuatro cinco seis siete ocho nueve"
)
_END = 80
"""Number of last characters in which marks are searched."""
_ELLIPSIS = re.compile(r"(?:\.\.|…)['\"”’»)\]]*$")
_GOES_ON = re.compile(r"[,;:，、；：،؛–—-]['\"”’»)\]]*$")

RECOGNIZED_AFTER_S = 0.1
"""Seconds of silence after which an utterance is recognized: the turn may have ended."""
RECOGNIZER_TIMEOUT_S = 20.0
"""Seconds after that in which a recognizer without words has failed."""
MAX_UTTERANCES = 100
"""Maximum utterances of one turn that are stored separately; of older ones the text is kept."""
_SLACK_S = 0.02


def end_of_turn_delay_s(
    text: str, pace: float | None = None, delays: EndOfTurnDelays = DEFAULT_DELAYS
) -> float:
    """Return the seconds of silence that end a turn with ``text`` so far. ``pace``: words per
    second, `None` if unknown. At most ``settings.most_s``, scaled."""
    words = normalized_words(text)
    delay_s = min(delays.most_s, _base_delay_s(text.strip()[-_END:], words, delays))
    if pace is not None and len(words) >= MIN_PACE_WORDS:
        delay_s *= min(1.5, max(1.0, DEFAULT_WORDS_PER_S / max(pace, 0.1)))
    return min(delay_s, delays.most_s) * delays.scale


def _base_delay_s(text: str, words: Sequence[str], delays: EndOfTurnDelays) -> float:
    ended = ends_sentence(text) and not _ELLIPSIS.search(text)
    last = words[-1] if words else ""
    if last in FILLERS:
        return delays.most_s
    incomplete = last in (NEVER_FINAL_WORDS if ended else INCOMPLETE_WORDS) or needs_more(text)
    if incomplete or _ELLIPSIS.search(text) or _ends_in_digit_group(words, ended=ended):
        return max(AFTER_NUMBER_S, delays.usual_s)
    if _GOES_ON.search(text):
        return max(AFTER_COMMA_S, delays.usual_s)
    return delays.finished_s if ended else delays.usual_s


def _ends_in_digit_group(words: Sequence[str], *, ended: bool) -> bool:
    """Return whether the words end in a number that may go on, as numbers are said in groups: "four
    one five", "0171 55". At the end of a sentence it has to consist of several groups."""
    run = list(takewhile(lambda word: word.isdigit() or word in NUMBER_WORDS, reversed(words)))
    digits = sum(len(word) if word.isdigit() else 1 for word in run)
    return digits >= 3 and len(run) >= 2 if ended else digits >= 2


@dataclass(slots=True)
class UserUtterance:
    """Utterance of the user since ``began``. ``upto``: time up to which it is recognized;
    ``ended``: time of its end. ``likeness``: similarity of its audio to the audio played then;
    ``echo``: it is an echo."""

    began: float
    text: str = ""
    upto: float = float("-inf")
    ended: float | None = None
    likeness: float = 0.0
    echo: bool = False

    @property
    def settled(self) -> bool:
        """Return whether its words cover all of its audio."""
        return self.ended is not None and self.upto >= self.ended - _SLACK_S


@dataclass(slots=True)
class UserTurn:
    """Turn of a user.

    ``since``: start of the current or last span of speech. ``echoable_text``: text that the
    assistant says meanwhile, or said just before, which may come back as an echo. ``answer``:
    the client has requested a reply, with the options ``answer_by`` if given, under the name
    ``answer_name``.

    ``announced``: clients were notified of the turn; over a reply they are not. Over a reply
    ``paused_at`` is the time since which the reply is held for the turn; ``dismissed``: the reply
    is not held for it any more; ``backchannel``: its words do not interrupt. ``heard_s``: playback
    position of the reply when the speech stopped. ``before``: text of utterances that are not kept
    any more.
    """

    since: float
    current: int
    speaking: bool = True
    ended: float = 0.0
    spoken_s: float = 0.0
    utterances: dict[int, UserUtterance] = field(default_factory=dict)
    committed: bool = False
    answer: bool = False
    answer_by: ConversationOptions | None = None
    answer_name: str = ""
    announced: bool = False
    echoable_text: str = ""
    before: str = ""
    paused_at: float | None = None
    dismissed: bool = False
    backchannel: bool = False
    heard_s: float = 0.0
    failure: SidecarError | None = None
    settled_at: float = 0.0

    @property
    def first(self) -> int:
        """Return its first utterance with words: noise may have come before."""
        with_text = (number for number, one in self.utterances.items() if one.text)
        return next(with_text, self.current)

    @property
    def began(self) -> float:
        """Return the start of the turn."""
        return self.utterances[self.first].began

    @property
    def text(self) -> str:
        """Return the words so far without echoes; with echoes if the client has committed the
        turn."""
        utterances = [one for one in self.utterances.values() if self.committed or not one.echo]
        texts = [one.text.strip() for one in utterances]
        return join_texts((self.before, *texts))

    @property
    def echoed(self) -> bool:
        """Return whether an utterance of it is an echo."""
        return any(one.echo for one in self.utterances.values())

    @property
    def settled(self) -> bool:
        """Return whether the user is silent, and all words are known."""
        return not self.speaking and all(one.settled for one in self.utterances.values())

    def start(self, utterance: int, began: float) -> None:
        """Start or continue speech, in the same utterance or another."""
        if self.speaking and utterance != self.current:  # a long utterance was cut
            self.stop(self.current, began)
        self.speaking, self.current, self.since = True, utterance, began
        self.committed = self.dismissed = self.backchannel = False
        one = self.utterances.setdefault(utterance, UserUtterance(began))
        one.ended = None
        if len(self.utterances) > MAX_UTTERANCES:
            oldest = self.utterances.pop(next(iter(self.utterances)))
            text = "" if oldest.echo else oldest.text.strip()
            self.before = truncate_utf8(f"{self.before} {text}".strip(), MAX_USER_TURN_BYTES)

    def stop(self, utterance: int, ended: float) -> None:
        """End speech at ``ended``."""
        self.spoken_s += max(0.0, ended - self.since)
        self.speaking, self.ended = False, ended
        self.utterances[utterance].ended = ended

    def hear(self, utterance: int, text: str, upto: float) -> bool:
        """Set the words of an utterance; return whether they or `settled` changed."""
        one = self.utterances.get(utterance)
        if one is None or upto < one.upto:
            return False
        changed, was_settled = one.text.strip() != text.strip(), self.settled
        one.text, one.upto = text, upto
        return changed or self.settled != was_settled

    def give_up(self, utterance: int, error: SidecarError) -> None:
        """Stop waiting for an utterance's words: the turn goes on with those that were
        recognized."""
        one = self.utterances.get(utterance)
        if one is not None and one.ended is not None and not one.settled:
            one.upto, self.failure = one.ended, error

    def late(self) -> list[tuple[float, int]]:
        """Return the utterances that have ended and whose words are not known, each with the time
        at which its recognizer has failed."""
        return [
            (one.ended + RECOGNIZED_AFTER_S + RECOGNIZER_TIMEOUT_S, number)
            for number, one in self.utterances.items()
            if one.ended is not None and not one.settled
        ]

    def over_at(self, delays: EndOfTurnDelays) -> float:
        """Return the time at which the turn ends if the user does not go on speaking."""
        text = self.text
        pace = len(normalized_words(text)) / self.spoken_s if self.spoken_s > 0 else None
        return self.ended + end_of_turn_delay_s(text, pace, delays)

    @property
    def recognized_s(self) -> float:
        """Return the seconds of the last recognition."""
        return max(0.0, self.settled_at - self.ended - RECOGNIZED_AFTER_S)
