"""An answer out of files: the sentence that shares most with the question, word for word. Nothing is made up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from askq.localapi.engines.base import Hit
from askq.localapi.files.tokens import asked, tokens

LEAST_SHARE, SURE_SHARE = 0.3, 0.45
"""Of the question's words, what a sentence must have to be quoted, and to be quoted without any doubt."""
QUOTED_CHARS = 600
QUOTES = 2
_SENTENCE = re.compile(r"[^\n.!?。！？]+(?:[.!?。！？](?!\s|$)[^\n.!?。！？]*)*[.!?。！？]*")


_ASKING = re.compile(
    r"(?:무엇|무슨|뭐|어떻게|어떤|얼마나?|며칠|몇|언제|어디|누구|누가|왜)\S*|\S{0,2}(?:인가요|입니까|습니까|나요|까요|알려\s?줘|알려\s?주세요)"
)
"""What makes a question of a Korean sentence, and is not in its answer."""


def quoted(question: str, hits: Sequence[Hit]) -> list[tuple[str, float, Hit]]:
    """The best sentences, the share of the question's words in them, and where they are from; none, if nothing fits."""
    wanted = set(asked(_ASKING.sub(" ", question))) or set(asked(question))
    found: list[tuple[float, str, Hit]] = []
    for hit in hits:
        for sentence in _SENTENCE.findall(hit.text):
            text = sentence.strip().lstrip("#-*> ").strip()
            shared = len(wanted & set(tokens(text)))
            if text and shared:
                found.append((shared / len(wanted), text[:QUOTED_CHARS], hit))
    found.sort(key=lambda one: (-one[0], -one[2].score))
    chosen: list[tuple[str, float, Hit]] = []
    best = found[0][0] if found else 0.0
    for share, text, hit in found:
        if len(chosen) < QUOTES and share >= max(0.75 * best, LEAST_SHARE) and text not in [one[0] for one in chosen]:
            chosen.append((text, share, hit))
    return chosen
