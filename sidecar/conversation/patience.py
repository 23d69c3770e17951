"""For how long a pause is waited before it ends a person's turn. Pure.

A pause behind a finished sentence is an end; one behind "and" is a breath. So what was said so far
decides, and for those who speak slowly all takes a little longer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

from sidecar.conversation.options import Patience
from sidecar.conversation.words import among, bare

USUAL = Patience()
SAYING_S = 0.8
"""Behind a comma: the sentence goes on."""
LOOKING_S = 1.0
"""Behind a run of digits or a word that needs another: numbers are said in groups."""
USUAL_PACE = 2.5
"""Words a second; who speaks more slowly pauses for longer."""
PACE_COUNTS_FROM = 4
"""Words below which a pace says nothing."""
FILLERS = among(
    "um uh umm uhm uhh er erm ehm hmm hm eh ah äh ähm ehh hem euh heu ben pues este cioè allora "
    "えっと ええと あの えー 음 어 嗯 呃 那个"
)
"""What is said while one looks for words."""
JOINING = among(
    "and or but because the a an if und oder aber weil dass der das ein eine einen et ou mais "
    "parce le les une des pero porque los las perché il och men и или но потому"
)
"""What never ends a sentence, whatever mark a recogniser puts behind it."""
WANTING = JOINING | among(
    "so when while although though than as nor unless until that which who whose to of in on at "
    "for from with without by about into like my your his her our their is are was were am i'm "
    "you're it's we're they're i i'd i'll let's maybe wenn ob als denn sondern obwohl die dem den "
    "mit von zu zum zur für auf bei nach über unter ist sind war que si quand car donc la un du "
    "de à dans avec pour sur chez y o cuando el con por en al del ma quando lo gli di per su nel "
    "della mas os uma com em что если когда на к для"
)
NUMBER_WORDS = among(
    "zero oh one two three four five six seven eight nine ten double triple null eins zwei drei "
    "vier fünf sechs sieben acht neun zéro deux trois quatre cinq sept huit neuf uno dos tres "
    "cuatro cinco seis siete ocho nueve"
)
_END = 80
"""Characters in which marks at the end are looked for."""
_ENDS = re.compile(r"[.!?。！？｡؟।॥።]['\"”’»)\]」』]*$")
_ELLIPSIS = re.compile(r"(?:\.\.|…)['\"”’»)\]]*$")
_GOES_ON = re.compile(r"[,;:，、；：،؛–—-]['\"”’»)\]]*$")


def patience(text: str, pace: float | None = None, settings: Patience = USUAL) -> float:
    """Seconds of silence that end a turn of which ``text`` was said so far, at ``pace`` words a
    second where that is known. Never more than ``settings.most_s``, scaled."""
    words = bare(text)
    wanted = min(settings.most_s, _wanted(text.strip()[-_END:], words, settings))
    if pace is not None and len(words) >= PACE_COUNTS_FROM:
        wanted *= min(1.5, max(1.0, USUAL_PACE / max(pace, 0.1)))
    return min(wanted, settings.most_s) * settings.scale


def _wanted(text: str, words: Sequence[str], settings: Patience) -> float:
    ended = bool(_ENDS.search(text)) and not _ELLIPSIS.search(text)
    last = words[-1] if words else ""
    if last in FILLERS:
        return settings.most_s
    if last in (JOINING if ended else WANTING) or _ELLIPSIS.search(text):
        return max(LOOKING_S, settings.usual_s)
    if _in_groups(words, ended=ended):
        return max(LOOKING_S, settings.usual_s)
    if _GOES_ON.search(text):
        return max(SAYING_S, settings.usual_s)
    return settings.finished_s if ended else settings.usual_s


def _in_groups(words: Sequence[str], *, ended: bool) -> bool:
    """Whether this ends in a number that may go on, as one is said in groups: "four one five",
    "0171 55". A number at the end of a sentence is one of several, or is an end."""
    run = list(takewhile(lambda word: word.isdigit() or word in NUMBER_WORDS, reversed(words)))
    digits = sum(len(word) if word.isdigit() else 1 for word in run)
    return digits >= 3 and len(run) >= 2 if ended else digits >= 2
