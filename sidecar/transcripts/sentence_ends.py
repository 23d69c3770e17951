"""Ends of sentences: the full stop of a title, an initial or an abbreviation is none. Pure.

The lists are those of Unicode's CLDR (46.1, sentence break suppressions) as far as they stand
before a name or a number, with the commonest that it lacks ("Dr.", "St.", "No."), and without those
that are words, too ("Go.", "Test."). They have no capitals and no last full stop.
"""

import re
from collections.abc import Mapping
from functools import cache

_SENTENCE_MARKS = (".", "!", "?", "…", "。", "！", "？", "؟", "।", "॥", "።", "｡")
CLOSING_MARKS = "\"'”’»)]}」』）】》〉"
"""Marks that may follow another mark before a cut."""
_BEFORE_MORE: Mapping[str, str] = {
    "cs": "bc doc dr ing mgr mudr např popř prof resp sv tj tzv",
    "da": "bl.a ca dr f.eks fr frk hr prof skt",
    "de": (
        "allg ausg bspw bzgl bzw ca d d.h dipl dipl.-ing dr dr.-ing einschl entspr evtl exkl fa "
        "fam fr frl geb gebr ges gest ggf ggfs hl hr hrn hrsg i i.d.r ing inh inkl jahrh kgl mind "
        "o pfr prof reg röm sog spezif st u u.a u.u urspr v v.a verf vgl z z.b z.hd zzgl"
    ),
    "el": "αγ δρ καθ κων π.χ",
    "en": (
        "adj adm approx capt cmdr col cpl dept dr e.g est exec fr ft gen gov hon i.e lt lt.cdr maj "
        "messrs mgr mr mrs ms mt mx pres prof pvt rep rev sen sgt sr st ste supt viz vs"
    ),
    "es": (
        "avda cfr cía dña dr dra drs excma excmo exma exmo fr gral ilma ilmo lcda lcdo lda ldo lic "
        "licda licdo mons ntra ntro p.ej prof profa rdo rvdo sr sra sras sres srta srtas sta sto "
        "ud uds vda"
    ),
    "fi": "dr esim hra mr mrs ns prof rva toht tri",
    "fr": "av cf dr env éd gal m mgr mlle mlles mm mme mmes p.ex pr prof st ste",
    "it": (
        "arch avv cav cfr dott dott.ssa dr egr geom gent ing mons p.es prof prof.ssa rag sig "
        "sig.na sig.ra sigg spett"
    ),
    "no": "bl.a ca dr f.eks fr frk hr prof st",
    "nl": "bijv ca dhr d.w.z dr drs ds ing ir jhr m.n mevr mgr mr mw o.a prof resp st",
    "pl": "al bp dr hab inż ks mgr np os pl prof św tj tzn tzw ul",
    "pt": (
        "alm av cel dr dra dras drs eng exma exmo fr ilma ilmo n.sra p.ex prof profa sr sra sras "
        "sres srta sta sto"
    ),
    "ru": "акад г-жа г-н гр д-р доц кв напр просп проф св т.е т.к т.н тов ул",
    "sv": "bl.a ca dr d.v.s fr frk hr prof s.k st t.ex",
    "tr": "doç dr örn prof sn yrd",
    "uk": "акад вул див доц напр проф просп св т.зв",
}
_WORDS_ELSEWHERE = "arch doc env est gal gent mind rag sta sto"
"""Those that are words of other languages, so that they count only in their own."""
_BEFORE_NUMBERS = (
    "abs abt art aug bd cap ch chap dec dez feb febr fig figs jan kap kl klo no nos nov nr nro nº "
    "n.º núm oct okt op p pag pos pp pág s sec sect sep sept str tel vol vols ziff č гл рис ст стр"
)
_MAY_BE_LAST = "co corp enz etc inc itd itp jr ltd osv usw млн млрд руб тыс"
"""Abbreviations that end a sentence before a capital letter; "a.m." and the like do, too."""
_WITH_ORDINALS = "bs cs da de et eu fi fo hr hu is lv mk no pl sk sl sr tr"
"""Languages in which a full stop makes a number an ordinal: "am 3. Mai"."""
_OPENING = re.compile(r"[\s(\[\"'’“‘«„¿¡]")


def ends_sentence(text: str, after: str = "", language: str = "") -> bool:
    """Return whether the text ends a sentence; quotes and brackets after the mark are ignored.
    ``after``: text that follows, if it is known; ``language``: a language tag, '' if unknown."""
    said = text.rstrip().rstrip(CLOSING_MARKS)
    return said.endswith(_SENTENCE_MARKS) and not needs_more(said, after, language)


def needs_more(text: str, after: str = "", language: str = "") -> bool:
    """Return whether the text ends with a title, an initial or an abbreviation, to which the text
    ``after`` it belongs; ``language``: as of `ends_sentence`."""
    said = text.rstrip()
    if not said.endswith(".") or said.endswith(".."):
        return False
    word, first = _OPENING.split(said[:-1])[-1], after.lstrip()[:1]
    short, code = word.casefold(), language.partition("-")[0].casefold()
    code = "no" if code in ("nb", "nn") else code
    if short in _listed(_MAY_BE_LAST):
        return first.islower()
    if short in _before_more(code if code in _BEFORE_MORE else ""):
        return True
    if word.isupper() and all(len(part) == 1 for part in word.split(".")):  # "J.", "U.S."
        return True
    if word.isdigit():
        return len(word) < 3 and code in _listed(_WITH_ORDINALS)
    return (first.isdigit() and short in _listed(_BEFORE_NUMBERS)) or (
        "." in word and first.islower()
    )


@cache
def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


@cache
def _before_more(code: str) -> frozenset[str]:
    if code:
        return _listed(_BEFORE_MORE[code])
    return _listed(" ".join(_BEFORE_MORE.values())) - _listed(_WORDS_ELSEWHERE)
