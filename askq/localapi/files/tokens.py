"""Words for searching, of any language.

Scripts with spaces give their words, stemmed where they are ASCII. Scripts without spaces (and Hangul, whose words
carry their particles) give each sign and each pair of neighbouring signs: a question finds a text with which
it shares pairs.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

import snowballstemmer

_PAIRED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u1100-\u11ff\u3130-\u318f\uac00-\ud7ff"  # Hangul
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_RUN = re.compile(rf"([{_PAIRED}]+)|([^\W_{_PAIRED}]+)")
_STEMMER = snowballstemmer.stemmer("english")

_COMMON = (
    "a an and are as at be by can do does for from had has have how i in is it its me my of on or our that the their "
    "there they this to was we were what when where which who will with you your"
)
COMMON = frozenset(_COMMON.split())
"""English words that say nothing about what is asked; left out of questions, not of texts."""


def tokens(text: str) -> Iterator[str]:
    """The words of a text, each as ASCII letters and digits."""
    for pairs, word in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if word:
            yield _word(word)
        else:
            yield from map(_spelled, pairs)
            yield from (_spelled(pairs[at : at + 2]) for at in range(len(pairs) - 1))


def asked(question: str) -> list[str]:
    """The words to look for, each once: without common ones if any are left, and single signs only where alone."""
    found: dict[str, None] = {}
    for pairs, word in _RUN.findall(unicodedata.normalize("NFKC", question).casefold()):
        if word:
            if word not in COMMON:
                found[_word(word)] = None
        elif len(pairs) == 1:
            found[_spelled(pairs)] = None
        else:
            found.update(dict.fromkeys(_spelled(pairs[at : at + 2]) for at in range(len(pairs) - 1)))
    return list(found) or list(dict.fromkeys(tokens(question)))


@functools.lru_cache(maxsize=50_000)
def _word(word: str) -> str:
    plain = "".join(sign for sign in unicodedata.normalize("NFD", word) if not unicodedata.combining(sign))
    if plain.isascii():
        stem: str = _STEMMER.stemWord(plain)
        return stem
    return _spelled(plain)


def _spelled(signs: str) -> str:
    """Signs as their numbers: the index is asked in ASCII."""
    return "".join(f"x{ord(sign)}" for sign in signs)
