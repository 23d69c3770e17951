"""Full stops that end a sentence, and those of titles, initials and abbreviations."""

import pytest

from sidecar.transcripts.sentence_ends import ends_sentence, needs_more

ENDS = [
    ("said.", "Then", "en"),
    ("he said.”", "Then", ""),
    ("really?", "mr.", "en"),
    ("No.", "I will", "en"),
    ("it was etc.", "Then", "en"),
    ("at 5 p.m.", "Then", "en"),
    ("of Apple Inc.", "The", "en"),
    ("in 2025.", "Mai", "de"),
    ("call 3.", "Then", "en"),
    ("change my mind.", "Then", ""),
    ("of the USA.", "Then", "en"),
    ("a B2.", "Then", "en"),
    ("Mr...", "Then", "en"),
    ("。", "我", "zh"),
]
"""Texts that end a sentence, what follows, and the language."""
GOES_ON = [
    ("Please call Mrs.", "Brown", "en"),
    ("Dr.", "Smith", ""),
    ("in St.", "James", "en-GB"),
    ("near No.", "5", "en"),
    ("Vol.", "2", ""),
    ("by J. R. R.", "Tolkien", "en"),
    ("the U.S.", "Army", "en"),
    ("at 5 p.m.", "we", "en"),
    ("Apple Inc.", "said", "en"),
    ("e.g.", "apples", "en"),
    ("mit Hrn.", "Müller", "de"),
    ("am 3.", "Mai", "de"),
    ("z. B.", "Äpfel", "de"),
    ("z.", "B.", "de-AT"),
    ("(Prof.", "Dr. Weiß", "de"),
    ("avec d'M.", "Dupont", "fr"),
    ("con la Sra.", "López", "es"),
    ("il dott.", "Rossi", "it"),
    ("com a Exma.", "Sra. Lima", "pt"),
    ("dhr.", "De Vries", "nl"),
    ("inż.", "Nowak", "pl"),
    ("г-н", "Иванов", "ru"),
    ("проф.", "Иванов", "ru"),
    ("А.", "Пушкин", "ru"),
]


@pytest.mark.parametrize(("text", "after", "language"), ENDS)
def test_full_stop_of_a_sentence_ends_it(text: str, after: str, language: str) -> None:
    assert ends_sentence(text, after, language)


@pytest.mark.parametrize(("text", "after", "language"), GOES_ON)
def test_full_stop_of_a_title_an_initial_or_an_abbreviation_ends_no_sentence(
    text: str, after: str, language: str
) -> None:
    assert not ends_sentence(text, after, language)


def test_title_needs_a_name_and_the_last_word_of_a_sentence_nothing() -> None:
    assert needs_more("I talked to Mr.")
    assert not needs_more("I talked to them.")
    assert not needs_more("I talked to")
