"""Questions about an attached CSV file: rates, means, sums and counts by a column, as text, bar chart and CSV.

The program uses Python's `csv` alone, and Pillow where a chart is asked for.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from askq.localapi.tutor.charts import bar_chart, font_for
from askq.localapi.tutor.columns import Column, Table, mentioned

_MEASURES = (
    (
        "rate",
        r"\brates?\b|\bratios?\b|\bproportion|\bpercent|\bshare\b|\bfraction\b|비율|퍼센트|율(?:을|은|이)?\b|률",
    ),
    ("mean", r"\bmean\b|\baverage|평균"),
    ("sum", r"\bsum\b|\btotals?\b|합계|총합|총"),
    ("most", r"\bmax|\bhighest\b|\blargest\b|최대|최고"),
    ("least", r"\bmin(?:imum)?\b|\blowest\b|\bsmallest\b|최소|최저"),
    ("count", r"\bcounts?\b|\bhow many\b|\bnumbers? of\b|몇|인원|개수|명수|\S수(?:를|는|가)?\b"),
)
_BY = r"\bby\b|\bper\b|\bfor each\b|\beach\b|\bgroup(?:ed|s)?\b|\bacross\b|\bamong\b|별"
_GROUPS = r"\b(?:age[- ]?)?(?:groups?|bands?|ranges?|bins?|brackets?)\b|연령대|나이대|구간"
_CHART = r"\bcharts?\b|\bplot|\bgraphs?\b|\bdraw\b|\bbars?\b|\bhistogram|막대|차트|그래프|그려|그림"
_FILE = r"\bcsv\b|\bsave|\bexport|\bdownload|\bas a file\b|저장|파일로|내려받"
_HANGUL = re.compile("[가-힣]")

_NOT = r"\bnot\b|n['’]t\b|\bnever\b|\bwithout\b|\bexcept|않|못|안\s|제외|아닌"
"""Words that turn a question round, which is more than is understood here."""

_SHOW = {"rate": "{value:.1%}", "mean": "{value:.2f}", "count": "{count}", "tally": "{value} of {count}"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be computed."""

    measure: str
    """A key of `_NAMES`; `count` is of rows, `tally` of those whose target says yes."""
    target: Column | None
    group: Column | None
    banded: bool
    chart: bool
    file: bool


@dataclass(frozen=True, slots=True)
class TableProgram:
    """Source, what it makes, and what to say of what it prints."""

    code: str
    table: str
    asked: Asked
    korean: bool
    chart: str | None = None
    file: str | None = None
    readable: tuple[str, ...] = ()
    numbered: bool = False
    notes: list[str] = field(default_factory=list)

    def say(self, lines: Sequence[str]) -> str:
        """The answer."""
        head = _headline(self.asked, self.table, korean=self.korean)
        parts = [head, *(f"- {line}" for line in lines)]
        if self.numbered:
            parts.append(
                "차트의 이름표는 위 목록의 순서를 나타내는 번호입니다(이 컴퓨터에 맞는 글꼴이 없습니다)."
                if self.korean
                else "The chart numbers the bars in the order of this list: no font here has these letters."
            )
        if self.chart is not None:
            parts.append(
                f"{'막대 그래프' if self.korean else 'Bar chart'}: [{self.chart}](sandbox:/mnt/data/{self.chart})"
            )
        if self.file is not None:
            parts.append(f"CSV: [{self.file}](sandbox:/mnt/data/{self.file})")
        return "\n".join(parts)


def ask(question: str, history: Sequence[str], tables: Sequence[Table]) -> TableProgram | None:
    """The program for a question about one of the tables, or None. `Draw it` is about what was asked before."""
    for table in _by_name(question, tables):
        found = _understood(question, table)
        chart, file = bool(re.search(_CHART, question, re.I)), bool(re.search(_FILE, _without(question, table), re.I))
        if found is None and (chart or file):
            for earlier in reversed(history):
                found = _understood(earlier, table)
                if found is not None:
                    break
        if found is not None:
            asked = Asked(found.measure, found.target, found.group, found.banded, chart, file)
            return _program(asked, table, korean=bool(_HANGUL.search(question)))
    return None


def _by_name(question: str, tables: Sequence[Table]) -> list[Table]:
    """The tables, those that are named first, then the latest."""
    named = [table for table in tables if table.name.lower() in question.lower()]
    return [*named, *(table for table in reversed(tables) if table not in named)]


def _without(question: str, table: Table) -> str:
    """The question without the file's name, which ends in `csv` and asks for nothing."""
    return re.sub(re.escape(table.name), " ", question, flags=re.I)


def _understood(question: str, table: Table) -> Asked | None:
    text = _without(question, table)
    columns = mentioned(text, table)
    banded = re.search(_GROUPS, text, re.I) is not None
    measure = next((name for name, words in _MEASURES if re.search(words, text, re.I)), None)
    group = _group(text, columns, banded=banded)
    others = [column for _, column in columns if column is not group]
    target = next((column for column in others if column.numeric or column.flag), None)
    if measure is None and group is not None:
        measure = "rate" if target is not None and target.flag else "mean" if target is not None else "count"
    if measure is None or (measure != "count" and target is None) or (group is None and target is None):
        return None
    if measure == "rate" and target is not None and not target.flag:
        return None
    if measure in ("count", "rate") and re.search(_NOT, text, re.I):
        return None
    if measure == "count" and target is not None and target.flag and (group or not re.search(_BY, text, re.I)):
        measure = "tally"
    if measure == "count":
        target = None
    if measure == "count" and group is None:
        return None
    return Asked(measure, target, group, banded and group is not None and group.numeric, chart=False, file=False)


def _group(text: str, columns: Sequence[tuple[int, Column]], *, banded: bool) -> Column | None:
    """The column whose values make the groups: the one behind `by`, or that Korean's `별` stands behind."""
    candidates = [column for _, column in columns]
    if banded:
        numeric = [column for column in candidates if column.numeric and not column.flag]
        if numeric:
            return numeric[-1] if len(numeric) == 1 else numeric[0]
    if _HANGUL.search(text):
        words = [column for column in candidates if not column.flag and (not column.numeric or column.values <= 20)]
        return words[0] if words and re.search(_BY, text) else None
    by = re.search(_BY, text, re.I)
    if by is None:
        return None
    behind = [column for at, column in columns if at >= by.start()]
    return behind[0] if behind else None


def _program(asked: Asked, table: Table, *, korean: bool) -> TableProgram:
    group, target = asked.group, asked.target
    lines = [
        "import csv",
        "",
        f"with open({_quoted(table.name)}, encoding={table.encoding!r}, newline='') as file:",
        f"    rows = list(csv.DictReader(file, delimiter={table.delimiter!r}))",
        "",
        "groups = {}",
        "for row in rows:",
    ]
    lines += _key(asked)
    if target is None:
        lines += ["    groups.setdefault(label, []).append(1)"]
    else:
        lines += [
            f"    text = (row[{_quoted(target.name)}] or '').strip().lower()",
            "    if text in ('', 'na', 'n/a', 'nan', 'null', 'none', '-'):",
            "        continue",
            f"    groups.setdefault(label, []).append({_number(asked.measure)})",
        ]
    value = {
        "count": "len(values)",
        "sum": "sum(values)",
        "tally": "sum(values)",
        "most": "max(values)",
        "least": "min(values)",
    }.get(asked.measure, "sum(values) / len(values)")
    order = "sorted(groups.items())"
    if asked.banded:
        order = "sorted(groups.items(), key=lambda item: (len(item[0].split('-')[0]), item[0]))"
    lines += ["", f"result = [(label, len(values), {value}) for label, values in {order}]"]
    show = _SHOW.get(asked.measure, "{value:g}")
    count = "" if asked.measure in ("count", "tally") else " (n = {count})"
    lines += ["for label, count, value in result:", f'    print(f"{{label}}: {show}{count}")']
    stem = _stem(asked, korean=korean)
    chart = file = font = None
    numbered = False
    if asked.chart:
        chart = f"{stem}.png"
        title = _title(asked)
        labels = group.signs if group is not None and not asked.banded else ""
        font, drawable = font_for([title, labels])
        if not drawable:
            # The labels are more than the title, which the answer has anyway.
            font, drawable = font_for([labels]) if title.isascii() is False and labels else (None, not labels)
            title = title if title.isascii() else ""
            numbered = not drawable
        lines += bar_chart(title, chart, font, show, numbered=numbered)
    if asked.file:
        file = f"{stem}.csv"
        by = "group" if group is None else f"{group.name} group" if asked.banded else group.name
        heads = [by, "count", *([] if asked.measure == "count" else [_head(asked)])]
        cells = "[label, count]" if asked.measure == "count" else "[label, count, round(value, 6)]"
        lines += [
            "",
            f"with open({_quoted(file)}, 'w', encoding='utf-8', newline='') as file:",
            "    writer = csv.writer(file)",
            f"    writer.writerow({json.dumps(heads, ensure_ascii=False)})",
            f"    writer.writerows({cells} for label, count, value in result)",
        ]
    readable = () if font is None else (font.path,)
    code = "\n".join(lines) + "\n"
    return TableProgram(code, table.name, asked, korean, chart, file, readable, numbered)


def _key(asked: Asked) -> list[str]:
    if asked.group is None:
        return ["    label = 'all'"]
    name = _quoted(asked.group.name)
    if not asked.banded:
        return [f"    label = (row[{name}] or '').strip() or '(empty)'"]
    return [
        f"    text = (row[{name}] or '').strip()",
        "    try:",
        "        low = int(float(text.replace(',', '')) // 10 * 10)",
        "        label = f'{low}-{low + 9}'",
        "    except ValueError:",
        "        label = '(empty)'",
    ]


def _number(measure: str) -> str:
    if measure in ("rate", "tally"):
        return "1 if text in ('1', '1.0', 'yes', 'true', 'y', '예') else 0"
    return "float(text.replace(',', ''))"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_NAMES = {
    "rate": "rate",
    "mean": "mean",
    "sum": "sum",
    "most": "maximum",
    "least": "minimum",
    "count": "count",
    "tally": "count",
}
_KOREAN_NAMES = {
    "rate": "비율",
    "mean": "평균",
    "sum": "합계",
    "most": "최댓값",
    "least": "최솟값",
    "count": "개수",
    "tally": "개수",
}


def _head(asked: Asked) -> str:
    return f"{asked.target.name}_{_NAMES[asked.measure]}" if asked.target else "count"


def _title(asked: Asked) -> str:
    what = f"{asked.target.name}: {_NAMES[asked.measure]}" if asked.target else "count"
    return f"{what} by {asked.group.name}" if asked.group else what


def _stem(asked: Asked, *, korean: bool) -> str:
    parts = [asked.target.name if asked.target else "count"]
    if asked.group is not None:
        parts += ["by", asked.group.name, *(["groups"] if asked.banded else [])]
    stem = unicodedata.normalize("NFC", "_".join(parts)).lower()
    return re.sub(r"[^\w-]+", "_", stem).strip("_")[:60] or "result"


def _headline(asked: Asked, table: str, *, korean: bool) -> str:
    target, group = asked.target, asked.group
    if korean:
        what = f"{target.name}의 {_KOREAN_NAMES[asked.measure]}" if target else "행의 개수"
        by = f"{group.name}{' 구간' if asked.banded else ''}별 " if group else ""
        return f"{table}에서 계산한 {by}{what}:"
    what = f"{_NAMES[asked.measure]} of {target.name}" if target else "number of rows"
    by = f" by {group.name}{' group' if asked.banded else ''}" if group else ""
    return f"{what[0].upper()}{what[1:]}{by}, computed from {table}:"
