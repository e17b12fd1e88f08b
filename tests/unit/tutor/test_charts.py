"""Charts: every script is drawn where there is a font for it; where there is none, the log says so and labels are
numbers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image, ImageFont

from askq.localapi.tutor import charts
from askq.localapi.tutor.charts import Font, bar_chart, font_for
from askq.localapi.tutor.columns import sampled
from askq.localapi.tutor.tables import ask

LABELS = {
    "Korean": ["여성", "남성", "뷁"],
    "Japanese": ["東京", "おおさか", "ナゴヤ"],
    "Chinese": ["北京", "广州", "臺灣"],
    "Thai": ["กรุงเทพ"],
    "Hindi": ["दिल्ली"],
    "Arabic": ["القاهرة"],
    "Russian": ["Москва"],
    "Greek": ["Αθήνα"],
    "German": ["Köln", "Größe"],
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without fonts: there is what the extra brings, and nothing else."""
    monkeypatch.setattr(charts, "_FOLDERS", ())
    charts._fonts.cache_clear()


@pytest.mark.parametrize("language", LABELS)
def test_each_script_has_a_font(language: str, caplog: pytest.LogCaptureFixture) -> None:
    labels = LABELS[language]
    font, drawable = font_for(["survived by sex", *labels])
    assert drawable
    assert caplog.text == ""
    face = ImageFont.load_default(18) if font is None else ImageFont.truetype(font.path, 18, index=font.index)
    boxes = bytes(face.getmask("\U0010fffe"))
    for sign in {sign for label in labels for sign in label}:
        assert bytes(face.getmask(sign)) != boxes, sign


def test_characters_have_the_shapes_of_their_language() -> None:
    found = {}
    for language, text in {"Korean": "한 骨", "Japanese": "の 骨", "Chinese": "骨"}.items():
        font, _ = font_for([text])
        assert font is not None
        found[language] = font.index
    assert found == {"Korean": 1, "Japanese": 0, "Chinese": 2}


def drawn(tmp_path: Path, font: Font | None, labels: list[str]) -> Image.Image:
    lines = [f"result = {[(label, 1, 0.5) for label in labels]!r}"]
    lines += bar_chart("표", str(tmp_path / "chart.png"), font, "{value:.1%}", numbered=False)
    exec("\n".join(lines), {})
    return Image.open(tmp_path / "chart.png")


def test_a_chart_is_drawn_in_a_weight_that_can_be_read(tmp_path: Path) -> None:
    """A variable font begins with its thinnest."""
    font, _ = font_for(["여성", "남성"])
    assert font is not None
    ink = []
    for variable in (False, True):
        image = drawn(tmp_path, Font(font.path, font.index, variable), ["여성", "남성"])
        ink.append(sum(image.convert("L").crop((0, 425, image.width, 480)).histogram()[:128]))
    assert font.variable
    assert ink[1] > 1.5 * ink[0]


def test_ascii_is_drawn_beside_a_script_whose_font_has_none(tmp_path: Path) -> None:
    font, _ = font_for(["กรุงเทพ"])
    assert font is not None
    assert not font.ascii
    image = drawn(tmp_path, font, ["เขต 1", "เขต 2"]).convert("L")
    numbers = [image.crop((99 + 200 * at, 54, 181 + 200 * at, 78)) for at in range(2)]
    assert all(sum(number.histogram()[:100]) > 20 for number in numbers), "50.0% stands over the bars"


def test_few_bars_share_the_whole_width(tmp_path: Path) -> None:
    image = drawn(tmp_path, None, ["one", "two"]).convert("RGB")
    blue = [x for x in range(image.width) if image.getpixel((x, 300)) == (0x4C, 0x72, 0xB0)]
    assert abs(blue[0] + blue[-1] - image.width) <= 2, "as far from the left as from the right"


TABLE = "sex,survived\n여성,1\n여성,0\n남성,0\n"


def test_labels_are_looked_at_and_not_only_the_title() -> None:
    table = sampled("t.csv", TABLE.encode())
    assert table is not None
    program = ask("Draw a bar chart of the survival rate by sex", [], [table])
    assert program is not None
    assert len(program.readable) == 1
    assert "set_variation_by_axes" in program.code


def test_without_a_font_labels_are_numbers_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(charts, "_PACKAGES", ())
    charts._fonts.cache_clear()
    table = sampled("t.csv", TABLE.encode())
    assert table is not None
    with caplog.at_level(logging.WARNING):
        program = ask("성별 생존율을 막대 그래프로 그려줘", [], [table])
    assert program is not None
    assert program.numbered
    assert "str(place + 1)" in program.code
    assert "'survived: rate by sex'" in program.code, "the title can be drawn"
    assert "번호" in program.say(["여성: 50.0%"])
    assert "Hangul" in caplog.text
    assert "askq[fonts]" in caplog.text
    charts._fonts.cache_clear()
