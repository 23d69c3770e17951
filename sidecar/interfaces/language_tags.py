"""Language tags and names of languages. Pure."""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence

from sidecar.errors import LanguageInvalid
from sidecar.interfaces.engine_interface import AUTO

MAX_SHOWN_CHARACTERS = 64
"""Characters of a client's text in a message: the longest known name has 20."""
UNDETERMINED = ("und", "mul")
"""Codes of ISO 639-2 for a language that is not known, and for several."""
_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8}){0,7}", re.IGNORECASE)
"""The shape of a language tag (BCP 47, without its rarer parts)."""


def parse_language(value: str) -> str:
    """Return the language tag, or 'auto'. The value may also be a name of the language, or begin
    with another code of it, such as those of three letters.

    Raises:
        errors.LanguageInvalid: it has neither the form of a tag nor is it a known name.
    """
    tag = value.strip().replace("_", "-") or AUTO
    if tag.lower() in (AUTO, *UNDETERMINED):
        return AUTO
    if (named := _codes_by_name().get(_without_accents(value.strip()))) is not None:
        return named
    if not _TAG.fullmatch(tag):
        raise LanguageInvalid(f"'{printable_text(tag)}' is not a language tag.")
    code, hyphen, rest = tag.partition("-")
    return _usual_codes().get(code.lower(), code) + hyphen + rest


def language_code(tag: str) -> str | None:
    """Return the code of a language tag, its first part; None if the language is unknown."""
    return None if tag == AUTO else tag.split("-")[0].lower()


def summarize_languages(codes: Sequence[str]) -> str:
    """Return languages as the page says them: "English and 99 more"; "any language" for none.
    English and what is alone go first."""
    if not codes:
        return "any language"
    code = "en" if "en" in codes else codes[0]
    first = LANGUAGE_NAMES.get(code, code).title()
    return first if len(codes) == 1 else f"{first} and {len(codes) - 1} more"


def printable_text(text: str) -> str:
    """Return the beginning of a client's text for a message."""
    shown = text[:MAX_SHOWN_CHARACTERS]
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in shown)


@functools.cache
def _codes_by_name() -> Mapping[str, str]:
    return {
        _without_accents(name): code
        for names in (NATIVE_LANGUAGE_NAMES, LANGUAGE_NAMES)
        for code, name in names.items()
    } | {name: code for code, names in OTHER_NAMES.items() for name in names.split()}


@functools.cache
def _usual_codes() -> Mapping[str, str]:
    return {other: code for code, others in OTHER_CODES.items() for other in others.split()}


def _without_accents(text: str) -> str:
    """Return text in lower case, without combining marks."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in parts if not unicodedata.combining(one))


LANGUAGE_NAMES = {
    "af": "afrikaans", "am": "amharic", "ar": "arabic", "as": "assamese", "az": "azerbaijani",
    "ba": "bashkir", "be": "belarusian", "bg": "bulgarian", "bn": "bengali", "bo": "tibetan",
    "br": "breton", "bs": "bosnian", "ca": "catalan", "cs": "czech", "cy": "welsh", "da": "danish",
    "de": "german", "el": "greek", "en": "english", "es": "spanish", "et": "estonian",
    "eu": "basque", "fa": "persian", "fi": "finnish", "fo": "faroese", "fr": "french",
    "gl": "galician", "gu": "gujarati", "ha": "hausa", "haw": "hawaiian", "he": "hebrew",
    "hi": "hindi", "hr": "croatian", "ht": "haitian creole", "hu": "hungarian", "hy": "armenian",
    "id": "indonesian", "is": "icelandic", "it": "italian", "ja": "japanese", "jw": "javanese",
    "ka": "georgian", "kk": "kazakh", "km": "khmer", "kn": "kannada", "ko": "korean", "la": "latin",
    "lb": "luxembourgish", "ln": "lingala", "lo": "lao", "lt": "lithuanian", "lv": "latvian",
    "mg": "malagasy", "mi": "maori", "mk": "macedonian", "ml": "malayalam", "mn": "mongolian",
    "mr": "marathi", "ms": "malay", "mt": "maltese", "my": "myanmar", "ne": "nepali", "nl": "dutch",
    "nn": "nynorsk", "no": "norwegian", "oc": "occitan", "pa": "punjabi", "pl": "polish",
    "ps": "pashto", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sa": "sanskrit",
    "sd": "sindhi", "si": "sinhala", "sk": "slovak", "sl": "slovenian", "sn": "shona",
    "so": "somali", "sq": "albanian", "sr": "serbian", "su": "sundanese", "sv": "swedish",
    "sw": "swahili", "ta": "tamil", "te": "telugu", "tg": "tajik", "th": "thai", "tk": "turkmen",
    "tl": "tagalog", "tr": "turkish", "tt": "tatar", "uk": "ukrainian", "ur": "urdu", "uz": "uzbek",
    "vi": "vietnamese", "yi": "yiddish", "yo": "yoruba", "zh": "chinese", "yue": "cantonese",
}  # fmt: skip
"""English names of the languages that Whisper knows, by its codes, in its order."""

NATIVE_LANGUAGE_NAMES = {
    "ar": "العربية", "bg": "български", "bn": "বাংলা", "ca": "català", "cs": "čeština",
    "cy": "cymraeg", "da": "dansk", "de": "deutsch", "el": "ελληνικά", "es": "español",
    "et": "eesti", "eu": "euskara", "fa": "فارسی", "fi": "suomi", "fr": "français", "gl": "galego",
    "he": "עברית", "hi": "हिन्दी", "hr": "hrvatski", "hu": "magyar", "id": "bahasa indonesia",
    "is": "íslenska", "it": "italiano", "ja": "日本語", "ko": "한국어", "lt": "lietuvių",
    "lv": "latviešu", "mk": "македонски", "ms": "bahasa melayu", "nl": "nederlands", "no": "norsk",
    "pl": "polski", "pt": "português", "ro": "română", "ru": "русский", "sk": "slovenčina",
    "sl": "slovenščina", "sq": "shqip", "sr": "srpski", "sv": "svenska", "sw": "kiswahili",
    "ta": "தமிழ்", "te": "తెలుగు", "th": "ไทย", "tr": "türkçe", "uk": "українська", "ur": "اردو",
    "vi": "tiếng việt", "yue": "粵語", "zh": "中文",
}  # fmt: skip
"""Names of languages in the language itself, by code; of the most spoken ones."""

OTHER_NAMES = {
    "ca": "valencian", "es": "castilian", "fa": "farsi", "ht": "haitian",
    "lb": "letzeburgesch", "my": "burmese", "nl": "flemish", "no": "bokmal", "pa": "panjabi",
    "ps": "pushto", "ro": "moldavian moldovan", "si": "sinhalese", "tl": "filipino",
    "zh": "mandarin",
}  # fmt: skip
"""Other English names, most of them from Whisper's list."""

OTHER_CODES = {
    "af": "afr", "am": "amh", "ar": "ara", "as": "asm", "az": "aze", "ba": "bak", "be": "bel",
    "bg": "bul", "bn": "ben", "bo": "bod tib", "br": "bre", "bs": "bos", "ca": "cat",
    "cs": "ces cze", "cy": "cym wel", "da": "dan", "de": "deu ger", "el": "ell gre", "en": "eng",
    "es": "spa", "et": "est", "eu": "eus baq", "fa": "fas per", "fi": "fin", "fo": "fao",
    "fr": "fra fre", "gl": "glg", "gu": "guj", "ha": "hau", "he": "heb iw", "hi": "hin",
    "hr": "hrv scr", "ht": "hat", "hu": "hun", "hy": "hye arm", "id": "ind in", "is": "isl ice",
    "it": "ita", "ja": "jpn", "jw": "jav jv", "ka": "kat geo", "kk": "kaz", "km": "khm",
    "kn": "kan", "ko": "kor", "la": "lat", "lb": "ltz", "ln": "lin", "lo": "lao", "lt": "lit",
    "lv": "lav", "mg": "mlg", "mi": "mri mao", "mk": "mkd mac", "ml": "mal", "mn": "mon",
    "mr": "mar", "ms": "msa may", "mt": "mlt", "my": "mya bur", "ne": "nep", "nl": "nld dut",
    "nn": "nno", "no": "nor nb nob", "oc": "oci", "pa": "pan", "pl": "pol", "ps": "pus",
    "pt": "por", "ro": "ron rum mo mol", "ru": "rus", "sa": "san", "sd": "snd", "si": "sin",
    "sk": "slk slo", "sl": "slv", "sn": "sna", "so": "som", "sq": "sqi alb", "sr": "srp scc",
    "su": "sun", "sv": "swe", "sw": "swa", "ta": "tam", "te": "tel", "tg": "tgk", "th": "tha",
    "tk": "tuk", "tl": "tgl fil", "tr": "tur", "tt": "tat", "uk": "ukr", "ur": "urd", "uz": "uzb",
    "vi": "vie", "yi": "yid ji", "yo": "yor", "zh": "zho chi cmn",
}  # fmt: skip
"""Other codes of the same languages by code: those of three letters (ISO 639-2/T and /B, as in
Matroska), withdrawn ones, and those that Whisper's list puts into one."""
