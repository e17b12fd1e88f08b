"""The tutor with files: computes on attached tables, quotes from stores, and says plainly when nothing fits."""

from __future__ import annotations

import re

from askq.localapi.engines.base import Code, Outcome, Output, Product, Quote, Request, Search, Text

_HANGUL = re.compile("[가-힣]")
_TABLES = (".csv", ".tsv")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp")


async def from_tables(request: Request) -> Outcome | None:
    """The answer to a question about an attached table; None if it is about none."""
    desk = request.desk
    given = [] if desk is None else [(name, one) for name, one in desk.names.items() if name.lower().endswith(_TABLES)]
    if desk is None or not given:
        return None
    from askq.localapi.tutor.columns import SAMPLE_BYTES, sampled
    from askq.localapi.tutor.tables import ask

    # The last one that fits is taken; "draw that" is about what was given, not about what was made of it.
    given.sort(key=lambda one: not one[1].made)
    tables = [table for name, file in given if (table := sampled(name, file.read(SAMPLE_BYTES)))]
    if not tables:
        return None
    program = ask(request.question, request.history, tables)
    if program is None:
        return None
    ran = await desk.run(program.code, readable=program.readable)
    pictures = tuple(product for product in ran.products if _is_picture(product))
    files = tuple(product for product in ran.products if product not in pictures)
    code = Code(source=program.code, logs=ran.logs, images=pictures, files=files)
    lines = [line.strip() for line in ran.logs.splitlines() if line.strip()]
    if ran.ended != "ok" or not lines:
        last = f" ({lines[-1][:200]})" if lines else ""
        return Outcome(outputs=(code, Text(value=f"I wrote a program for this, but it came to no result{last}.")))
    return Outcome(outputs=(code, Text(value=program.say(lines))))


def _is_picture(product: Product) -> bool:
    return product.name.lower().endswith(_PICTURES)


async def from_stores(request: Request, *, sure: bool) -> Outcome | None:
    """A quote from the request's stores. `sure`: None where it is not clear that the files say something to it."""
    if request.desk is None or not request.stores:
        return None
    from askq.localapi.tutor.passages import SURE_SHARE, quoted

    hits = await request.desk.search([request.question])
    found = quoted(request.question, hits)
    if sure and (not found or found[0][1] < SURE_SHARE):
        return None
    search = Search(queries=(request.question,), hits=tuple(hits))
    korean = _HANGUL.search(request.question) is not None
    if not found:
        return Outcome(outputs=(search, Text(value=_NOTHING[korean])))
    text, quotes = _INTRODUCTION[korean], []
    for passage, _, hit in found:
        text += f"\n\n“{passage}”"
        quotes.append(Quote(at=len(text), file_id=hit.file_id, filename=hit.filename))
        text += f" ({hit.filename})"
    return Outcome(outputs=(search, Text(value=text, quotes=tuple(quotes))))


_INTRODUCTION = {False: "The files say:", True: "파일에 이렇게 쓰여 있습니다:"}
_NOTHING = {
    False: (
        "Nothing in the files fits this question. (I am askq's offline tutor, not a language model: I quote what "
        "shares words with the question.)"
    ),
    True: (
        "파일에서 이 질문에 맞는 내용을 찾지 못했습니다. (저는 언어 모델이 아니라 askq의 오프라인 튜터로서, "
        "질문과 같은 낱말이 있는 문장을 인용합니다.)"
    ),
}


def unread(request: Request) -> Outcome | None:
    """What to say of a question whose tables or pictures the tutor can make nothing of."""
    outputs: tuple[Output, ...] = ()
    if any(turn.images for turn in request.turns[-1:]):
        outputs = (Text(value="I cannot look at pictures: I am askq's offline tutor, not a language model."),)
    elif request.desk is not None and any(name.lower().endswith(_TABLES) for name in request.desk.names):
        names = ", ".join(name for name in request.desk.names if name.lower().endswith(_TABLES))
        korean = _HANGUL.search(request.question) is not None
        outputs = (Text(value=_CANNOT[korean].format(names=names)),)
    return Outcome(outputs=outputs) if outputs else None


_CANNOT = {
    False: (
        "I do not understand what to compute from {names}. I am askq's offline tutor, not a language model: I compute "
        "rates, means, sums and counts by a column, as in “survival rate by sex”, draw them as a bar chart and save "
        "them as CSV."
    ),
    True: (
        "{names}에서 무엇을 계산해야 할지 모르겠습니다. 저는 언어 모델이 아니라 askq의 오프라인 튜터입니다. "
        "“성별 생존율”처럼 열마다의 비율, 평균, 합계, 개수를 계산하고 막대 그래프나 CSV로 만들 수 있습니다."
    ),
}
