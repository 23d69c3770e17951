"""Text as a model writes it, in pieces for a voice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.interfaces import tts_text


def cut(text: str, size: int = 1) -> list[tts_text.TtsPhrase]:
    """The pieces of ``text`` that comes ``size`` characters at a time."""
    sentences = tts_text.SentenceSplitter()
    found: list[tts_text.TtsPhrase] = []
    for at in range(0, len(text), size):
        found += sentences.feed(text[at : at + size])
    return found + sentences.flush()


def said(text: str) -> list[str]:
    return [piece.text for piece in cut(text) if piece.text]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (
            "That is a good question, and the answer is no. It is not so. Really!",
            ["That is a good question,", "and the answer is no.", "It is not so.", "Really!"],
        ),
        ("Yes, it is. No.", ["Yes, it is.", "No."]),
        ("Pi is 3.5 or so. Not more.", ["Pi is 3.5 or so.", "Not more."]),
        ("Ask Dr. Smith or Mrs. Jones today.", ["Ask Dr. Smith or Mrs. Jones today."]),
        ("Fruit, e.g. apples, i.e. food.", ["Fruit, e.g. apples,", "i.e. food."]),
        ("In the U.S. Army it is so.", ["In the U.S. Army it is so."]),
        ("J. R. Smith is here now.", ["J. R. Smith is here now."]),
        ("Well... I do not know.", ["Well... I do not know."]),
        ("I thought about it… Then I slept.", ["I thought about it…", "Then I slept."]),
        ("See No. 5 there. No. Not me.", ["See No. 5 there.", "No. Not me."]),
        ('He said "Really?" and left. Then I did.', ['He said "Really?" and left.', "Then I did."]),
        ("Is it so?! Yes it is.", ["Is it so?!", "Yes it is."]),
        ("That costs 1,000,000 dollars today.", ["That costs 1,000,000 dollars today."]),
        ("Go to example.com now. Then come back.", ["Go to example.com now.", "Then come back."]),
        ("First, second. Then OK. Fine. And so on it goes.", None),
        ("はい、そうです。明日は雨が降ります。傘を持って。", None),
        (
            "这是一个好问题，答案是三点五。谢谢你们！",
            ["这是一个好问题，", "答案是三点五。", "谢谢你们！"],
        ),
        ("क्या हाल है आप का। मैं ठीक हूँ।", ["क्या हाल है आप का।", "मैं ठीक हूँ।"]),
        ("كيف حالك اليوم؟ أنا بخير شكرا.", ["كيف حالك اليوم؟", "أنا بخير شكرا."]),
    ],
)
def test_text_is_split_into_sentences_and_the_first_phrase_may_be_a_clause(
    text: str, pieces: list[str] | None
) -> None:
    found = said(text)
    assert found == (pieces or found)
    assert len(found) > 1 or pieces is not None


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("**Bold** and *thin* and __strong__ and ~~gone~~.", "Bold and thin and strong and gone."),
        ("Use `len(x)` on snake_case_names.", "Use len(x) on snake_case_names."),
        ("2 * 3 * 4 is 24.", "2 * 3 * 4 is 24."),
        ("See [the docs](https://x.org/a_b) please.", "See the docs please."),
        ("See https://x.org/a_b?c=d. Then ask.", "See. Then ask."),
        ("![A cat](cat.png)", "A cat"),
        ("# A heading\n", "A heading."),
        ("## Is it?\n", "Is it?"),
        ("- one\n", "one."),
        ("12. twelve\n", "twelve."),
        ("- [x] done\n", "done."),
        ("> quoted\n", "quoted."),
        ("---\n", ""),
        ("| a | b |\n", "a, b."),
        ("|---|:-:|\n", ""),
        ("Great! 😀🎉 👨‍👩‍👧 Really 👍🏽.", "Great! Really."),
        ("1️⃣ First", "1 First"),
        ("It is 20 °C © me.", "It is 20 °C © me."),
        ("Note[^1] that<br> it is \\*so\\*.", "Note that it is *so*."),
        ("… !", ""),
        ("**Open and", "Open and"),
    ],
)
def test_markup_links_and_emoji_are_not_spoken(text: str, heard: str) -> None:
    assert tts_text.speakable_text(text) == heard


def test_code_block_is_shown_and_not_spoken() -> None:
    text = "Like this:\n\n```python\nprint('a. b')\n# no heading.\n```\nThat is all."
    pieces = cut(text)
    assert [piece.text for piece in pieces] == ["Like this:", "", "That is all."]
    assert "print" in pieces[1].shown


def test_unclosed_link_bracket_holds_back_no_text_beyond_its_line() -> None:
    assert said("Look [a.\nNext line is here. Then more.") == [
        "Look [a.",
        "Next line is here.",
        "Then more.",
    ]
    assert said('Now see [it](https://x.org "One. Two") here. And so on.')[0] == "Now see it here."


def test_code_fence_of_tildes_may_have_backticks_after_it_and_one_of_backticks_may_not() -> None:
    assert said("~~~ a`b\nNo words. At all.\n~~~\nBut these are some.") == ["But these are some."]
    assert said("```a``` is what one says.") == ["a is what one says."]


@pytest.mark.parametrize("text", ["```\nfor ever. And ever.\n", "~~~~\na\n~~~\nb"])
def test_text_after_an_unclosed_code_fence_is_not_spoken(text: str) -> None:
    assert said(text) == []


def test_number_of_a_list_item_is_not_spoken_as_a_sentence() -> None:
    assert said("1. Take this one.\n2. Then that. And go.") == [
        "Take this one.",
        "Then that.",
        "And go.",
    ]


def test_phrase_is_not_split_within_a_link_or_inline_code() -> None:
    assert said("See [Dr. Who. A film](https://x.org) with me. Now `a. B` goes on.") == [
        "See Dr. Who. A film with me.",
        "Now a. B goes on.",
    ]


def test_first_phrase_is_returned_before_its_sentence_ends() -> None:
    sentences = tts_text.SentenceSplitter()
    assert [piece.text for piece in sentences.feed("That is a good question, and")] == [
        "That is a good question,"
    ]


def test_phrase_without_an_end_is_cut_at_the_length_limit() -> None:
    pieces = cut("word " * 100)
    assert all(len(piece.shown) <= tts_text.MAX_PHRASE_CHARACTERS for piece in pieces)
    assert all(piece.text.split() == ["word"] * len(piece.text.split()) for piece in pieces)
    for text in ("w" * 1000, "No" + "!" * 3000, "w" * 300 + "." * 3000, "Wait… " + '."' * 1500):
        assert max(len(piece.shown) for piece in cut(text)) == tts_text.MAX_PHRASE_CHARACTERS


PLAIN = (
    "Hello|yes|3.5|Dr.|e.g.|U.S.|etc.|...|…|.|?|!|,|;|—| | | |\n|\n\n|。|、|！|؟|।|はい|明日|a|B"
)
MARKS = "```|```\n|`|**|*|_|# |- |1. |> |[a](b)|[|](|)|https://x.org/a.b|😀|\"|'|)|12|\\"
scraps = st.sampled_from(f"{PLAIN}|{MARKS}".split("|"))
texts = st.lists(scraps, max_size=40).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=texts, size=st.integers(1, 7))
def test_joined_phrases_are_the_text_however_it_arrives(text: str, size: int) -> None:
    pieces = cut(text, size)
    assert "".join(piece.shown for piece in pieces) == text
    assert pieces == cut(text, len(text) or 1)
    assert all(piece.shown for piece in pieces)


words = st.text("abcdefgäöß", min_size=1, max_size=8)
prose = st.lists(
    st.tuples(words, st.sampled_from(["", "", "", ",", ".", "!", "?", ";", "..."])), min_size=1
).map(lambda rows: " ".join(word + mark for word, mark in rows))


@settings(max_examples=300, deadline=None)
@given(text=prose)
def test_phrases_lose_and_add_no_word(text: str) -> None:
    assert tts_text.normalized_words(" ".join(said(text))) == tts_text.normalized_words(text)
