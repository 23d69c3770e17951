"""Text for TTS: sentence splitting, removal of markup, normalized words. Pure.

The first phrase may be a clause, so that TTS can start early; later ones are sentences. Together
the phrases are the text, to the character, however it was split in `feed`.
"""

import re
import unicodedata
from dataclasses import dataclass

from sidecar.transcripts.sentence_ends import needs_more

_SUBSTITUTES = [
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^)\[\n]*\)"), r"\1"),  # [text](address), ![text](address)
    (re.compile(r"!?\[([^\[\]\n]*)\]\[[^\[\]\n]*\]"), r"\1"),
    (re.compile(r"\[\^[^\[\]\n]*\]"), ""),  # [^1]
    (re.compile(r"<?\b(?:https?|ftp)://[^\s<>]*[^\s<>.,;:!?)\]}'\"*_`]>?"), " "),
    (re.compile(r"</?[A-Za-z][^<>\n]*>"), " "),
    (re.compile(r"`+"), ""),
    (re.compile(r"(?<!\\)(\*\*\*|\*\*|~~)"), ""),
    (re.compile(r"(?<![\w\\])(_{1,3})(?=\S)|(?<=[^\s\\])(_{1,3})(?!\w)"), ""),
    (re.compile(r"(?<![\w\\*])\*(?=[^\s*])|(?<=[^\s\\*])\*(?![\w*])"), ""),
    (re.compile(r"\\([\\`*_{}\[\]()#+\-.!|>~])"), r"\1"),
]
_LONE_MARK = re.compile(r"(?:(?<=[.,;:!?]) [.,;:!?]| ([.,;:!?]))(?= |$)")
"""Punctuation left over after a removed address or picture."""
_LEADS = re.compile(r"^[ \t]*(?:(?:>|#{1,6}(?=\s)|[-*+](?=\s)|\d{1,3}[.)](?=\s))[ \t]*)+")
_LEAST_RULE = 3
"""Minimum number of characters of a horizontal rule."""
_TASK = re.compile(r"^\[[ xX]\][ \t]+")


def speakable_text(text: str, *, from_line_start: bool = True) -> str:
    """Return the text for TTS; empty if there is nothing to say.

    Marks of headings, lists and quotes count only at the start of a line; ``from_line_start``:
    ``text`` begins at one. The end of a line becomes a full stop.
    """
    lines = text.split("\n")
    clean_lines = [
        _clean_line(line, leads=number > 0 or from_line_start, ended=number < len(lines) - 1)
        for number, line in enumerate(lines)
    ]
    joined = " ".join(line for line in clean_lines if line)
    return joined if any(_is_pronounced(one) for one in joined) else ""


def _clean_line(line: str, *, leads: bool, ended: bool) -> str:
    if leads and _is_rule(line):
        return ""
    if leads:
        bare = _LEADS.sub("", line)
        ended = ended or bare != line
        line = _TASK.sub("", bare) if bare != line else bare
    if leads and line.strip().startswith("|"):
        line = ", ".join(cell.strip() for cell in line.strip().strip("|").split("|"))
    for pattern, substitute in _SUBSTITUTES:
        line = pattern.sub(substitute, line)
    line = "".join(" " if _is_picture(one) else one for one in line if one not in _JOINTS)
    line = " ".join(line.split())
    line = _LONE_MARK.sub(r"\1", line)
    if ended and line and _is_pronounced(line[-1]):
        line += "."
    return line


def _is_rule(line: str) -> bool:
    """Return whether a line is a horizontal rule, or the rule below a table's head."""
    bare = "".join(line.split())
    across = len(bare) >= _LEAST_RULE and {*bare} <= {*"-*_="}
    return across or ("-" * _LEAST_RULE in line and {*bare} <= {*":|-"})


def _is_pronounced(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


_JOINTS = "\u200d\ufe0e\ufe0f\u20e3"
"""Characters that join the parts of an emoji; TTS engines need the first for no script."""


def _is_picture(character: str) -> bool:
    code = ord(character)
    if 0x1F000 <= code <= 0x1FAFF or 0xE0020 <= code <= 0xE007F:
        return True
    return code >= 0x2190 and unicodedata.category(character) == "So"


def normalized_words(text: str) -> list[str]:
    """Return the words of ``text`` in order: lower case, only letters and digits."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    found = ("".join(filter(_counts, word)) for word in plain.split())
    return [word for word in found if word]


def _counts(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def word_set(words: str) -> frozenset[str]:
    """Return the words listed in ``words``, normalized as by `normalized_words`, each as one word:
    "uh_huh" becomes "uhhuh"."""
    return frozenset("".join(normalized_words(word)) for word in words.split())


MAX_PHRASE_CHARACTERS = 240
"""Characters after which a phrase without an end is cut."""
MIN_CLAUSE_WORDS = 3
"""Minimum number of words of a clause, for the first phrase."""
MIN_PHRASE_WORDS = 3
"""Minimum number of words of a later phrase: shorter sentences are joined with the next."""
_WIDE_ENDS = "。！？｡"
_ENDS = ".!?؟।॥…" + _WIDE_ENDS
_CLOSES = "'\"”’»)]」』）*_~`"
_WIDE_STOPS = "，、；："
_STOPS = ",;:،؛—–" + _WIDE_STOPS
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})([^\n]*)")
_MAY_BE_A_FENCE = re.compile(r"[ ]{0,3}(?:`{1,2}|~{1,2})?$")


@dataclass(frozen=True, slots=True)
class TtsPhrase:
    """Phrase of a reply: the text as ``shown``, and the ``text`` for TTS, which is empty if there
    is nothing to say."""

    shown: str
    text: str


class SentenceSplitter:
    """Incremental splitter of one reply into phrases."""

    def __init__(self) -> None:
        self._rest = ""
        self._line_start = True
        self._first = True

    def feed(self, text: str) -> list[TtsPhrase]:
        """Add text; return the phrases that are complete."""
        self._rest += text
        return self._pieces(final=False)

    def flush(self) -> list[TtsPhrase]:
        """Return the phrases that are left at the end of the text."""
        return self._pieces(final=True)

    def _pieces(self, *, final: bool) -> list[TtsPhrase]:
        found: list[TtsPhrase] = []
        while self._rest:
            length, code = self._next(final)
            if not length:
                break
            found.append(self._take(length, code))
        return found

    def _take(self, length: int, code: bool) -> TtsPhrase:
        shown, self._rest = self._rest[:length], self._rest[length:]
        text = "" if code else speakable_text(shown, from_line_start=self._line_start)
        self._line_start = shown.endswith("\n")
        self._first = self._first and not text
        return TtsPhrase(shown, text)

    def _next(self, final: bool) -> tuple[int, bool]:
        """Return the length of the next phrase, 0 while it is open, and whether it is code."""
        rest = self._rest
        begin = len(rest) - len(rest.lstrip())
        if begin == len(rest):
            return (len(rest) if final else 0), False
        line = rest.rfind("\n", 0, begin) + 1
        if line or self._line_start:
            code = _code_block_end(rest, line, final)
            if code is not None:
                return code, True
        end = _phrase_end(rest, begin, first=self._first, final=final)
        return (end or (len(rest) if final else 0)), False


def _code_block_end(rest: str, line: int, final: bool) -> int | None:
    """Return the end of the code block that begins at ``line``; 0 while it is open, `None` if no
    block begins there."""
    if not final and _MAY_BE_A_FENCE.fullmatch(rest, line):
        return 0
    fence = _FENCE.match(rest, line)
    if fence is None or (fence[1][0] == "`" and "`" in fence[2]):
        return None
    close = rf"\n[ ]{{0,3}}{fence[1][0]}{{{len(fence[1])},}}[ \t]*" + (
        r"(?:\n|$)" if final else r"\n"
    )
    found = re.compile(close).search(rest, fence.end())
    if found is not None:
        return found.end()
    return len(rest) if final else 0


def _phrase_end(rest: str, begin: int, *, first: bool, final: bool) -> int:
    """Return the end of the phrase that begins at ``begin``, 0 while it is open."""
    at = begin
    while at < len(rest):
        if at - begin >= MAX_PHRASE_CHARACTERS:
            return _forced_cut(rest, begin)
        one = rest[at]
        if one == "\n":
            return at + 1
        if one in _ENDS or (first and one in _STOPS):
            after = _punctuation_end(rest, at)
            if after - begin > MAX_PHRASE_CHARACTERS:  # a line of dots
                return _forced_cut(rest, begin)
            if after == len(rest) and not final:
                return 0
            certain = _ends_phrase(rest, begin, at, after, first, final)
            if certain is None:
                return 0
            if certain:
                return after
            at = after - 1
        at += 1
    return 0


def _punctuation_end(rest: str, at: int) -> int:
    """Return the position after the mark at ``at`` and the marks and closing quotes that follow."""
    after = at + 1
    if rest[at] in _ENDS:
        while after < len(rest) and rest[after] in _ENDS:
            after += 1
        while after < len(rest) and rest[after] in _CLOSES:
            after += 1
    return after


def _ends_phrase(
    rest: str, begin: int, at: int, after: int, first: bool, final: bool
) -> bool | None:
    """Return whether a phrase ends with the mark from ``at`` to ``after``; `None` if more text is
    needed to decide."""
    phrase = rest[begin:after]
    if _has_open_markup(phrase):
        return False
    wide = any(one in _WIDE_ENDS + _WIDE_STOPS for one in rest[at:after])
    if after < len(rest) and not (wide or rest[after].isspace()):
        return False
    if rest[at] in _STOPS:
        return _count_words(phrase) >= MIN_CLAUSE_WORDS
    gap = len(rest) - len(rest[after:].lstrip())
    if gap == len(rest) or "\n" in rest[after:gap]:
        return True if final or gap < len(rest) else None
    if _sentence_continues(phrase, rest[at:after], rest[gap]):
        return False
    return first or _count_words(phrase) >= MIN_PHRASE_WORDS


def _sentence_continues(phrase: str, mark: str, behind: str) -> bool:
    """Return whether the sentence continues with ``behind``, despite the mark."""
    if behind.islower():
        return True
    if mark.startswith(("..", "…")):
        return _count_words(phrase) < MIN_PHRASE_WORDS
    if not mark.startswith("."):
        return False
    if needs_more(phrase[: len(phrase) - len(mark) + 1], behind):
        return True
    return phrase[: -len(mark)].strip(" \t>*+-#").isdigit()  # "1." begins a list item


def _has_open_markup(phrase: str) -> bool:
    """Return whether a link or code is open in the text."""
    if phrase.count("`") % 2:
        return True
    bracket = phrase.rfind("[")
    if bracket < 0:
        return False
    close = phrase.find("]", bracket)
    return close < 0 or (phrase[close + 1 : close + 2] == "(" and ")" not in phrase[close:])


def _count_words(phrase: str) -> int:
    """Return the number of words; scripts without spaces count two characters as a word."""
    return sum(1 + (len(word) // 2 if ord(max(word)) >= 0x2E80 else 0) for word in phrase.split())


def _forced_cut(rest: str, begin: int) -> int:
    """Return the cut of a phrase that is too long: after a space if possible."""
    space = rest.rfind(" ", begin + MAX_PHRASE_CHARACTERS // 2, begin + MAX_PHRASE_CHARACTERS)
    return space + 1 if space >= 0 else begin + MAX_PHRASE_CHARACTERS
