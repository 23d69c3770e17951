"""What speakers are called who have no name. Pure."""

from __future__ import annotations


def letters(speaker: int) -> str:
    """The label of a speaker: A to Z, AA, AB, and so on."""
    label = ""
    number = speaker + 1
    while number:
        number, place = divmod(number - 1, 26)
        label = chr(ord("A") + place) + label
    return label
