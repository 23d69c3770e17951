"""What of written text is said aloud: no Markdown, no addresses, no emoji. Pure."""

from __future__ import annotations

import re
import unicodedata

_ENDED = ".!?:;,。！？：；，、؟।…"
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
"""What stood behind an address or a picture."""
_LEADS = re.compile(r"^[ \t]*(?:(?:>|#{1,6}(?=\s)|[-*+](?=\s)|\d{1,3}[.)](?=\s))[ \t]*)+")
_LEAST_RULE = 3
"""Characters of a line that is drawn across the page."""
_TASK = re.compile(r"^\[[ xX]\][ \t]+")


def spoken(text: str, *, from_line_start: bool = True) -> str:
    """What a voice gets of ``text``; empty if there is nothing in it to be said.

    Marks of headings, lists and quotes stand only where a line begins: ``from_line_start`` says
    whether ``text`` does. What ends with its line ends with a full stop.
    """
    lines = text.split("\n")
    said = [
        _line(line, leads=number > 0 or from_line_start, ended=number < len(lines) - 1)
        for number, line in enumerate(lines)
    ]
    joined = " ".join(line for line in said if line)
    return joined if any(_sounds(one) for one in joined) else ""


def _line(line: str, *, leads: bool, ended: bool) -> str:
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
    line = " ".join(_without_pictures(line).split())
    line = _LONE_MARK.sub(r"\1", line)
    if ended and line and _sounds(line[-1]):
        line += "."
    return line


def _is_rule(line: str) -> bool:
    """Whether a line is drawn: across the page, or below the head of a table."""
    bare = "".join(line.split())
    across = len(bare) >= _LEAST_RULE and {*bare} <= {*"-*_="}
    return across or ("-" * _LEAST_RULE in line and {*bare} <= {*":|-"})


def _sounds(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"


def _without_pictures(line: str) -> str:
    return "".join(" " if _is_picture(one) else one for one in line if one not in _JOINTS)


_JOINTS = "\u200d\ufe0e\ufe0f\u20e3"
"""What ties the parts of an emoji together. (The first has a meaning in some scripts, too; voices
read those without it.)"""


def _is_picture(character: str) -> bool:
    code = ord(character)
    if 0x1F000 <= code <= 0x1FAFF or 0xE0020 <= code <= 0xE007F:
        return True
    return code >= 0x2190 and unicodedata.category(character) == "So"
