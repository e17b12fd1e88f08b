"""Bar charts by Pillow: the lines of a program that draws one, and a font that has the signs it needs."""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/System/Library/Fonts", "/Library/Fonts", "~/.fonts")
_KNOWN = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansKR-Regular.otf",
    "NanumGothic.ttf",
    "AppleSDGothicNeo.ttc",
    "AppleGothic.ttf",
    "unifont.otf",
    "DroidSansFallbackFull.ttf",
    "wqy-zenhei.ttc",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
)
_PACKAGES = ("manimgx_fonts_cjk", "manimgx_fonts")
"""What the extra `fonts` brings: Noto Sans for nearly every script, so that no font of the system is needed."""
_REMEDY = "`pip install 'askq[fonts]'` brings fonts for nearly every script"
_REGULAR = 400
_MOST_SIGNS = 2000
_PLAIN = None


@dataclass(frozen=True, slots=True)
class Font:
    """A font as a program loads it."""

    path: str
    index: int = 0
    """Which of a collection."""
    variable: bool = False
    """Whether its weight must be chosen: some begin with the thinnest."""
    ascii: bool = True
    """Whether it has ASCII, too: some have their own script alone."""

    def lines(self, size: int) -> list[str]:
        """The lines that make it `font`."""
        which = f", index={self.index}" if self.index else ""
        regular = [f"font.set_variation_by_axes([{_REGULAR}])"] if self.variable else []
        return [f"font = ImageFont.truetype({self.path!r}, {size}{which})", *regular]


@functools.cache
def _fonts() -> tuple[str, ...]:
    """The known fonts there are, best first."""
    found: dict[str, str] = {}
    for folder in _FOLDERS:
        for path in Path(folder).expanduser().rglob("*"):
            if path.name in _KNOWN:
                found.setdefault(path.name, str(path))
    return (*_packaged(), *(found[name] for name in _KNOWN if name in found))


def _packaged() -> Iterator[str]:
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield from sorted(str(path) for path in Path(folder).iterdir() if path.suffix in (".ttf", ".otf", ".ttc"))


@functools.cache
def _face(font: str | None) -> Any:
    """A font as Pillow has it (None: its own); None for a file that is none."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(16) if font is _PLAIN else ImageFont.truetype(font, 16)
    except OSError:
        return None


@functools.cache
def _nothing(font: str | None) -> bytes:
    """What a font does not have it draws as its sign for nothing."""
    return bytes(_face(font).getmask("\U0010fffe"))


@functools.cache
def _draws(font: str | None, sign: str) -> bool:
    face = _face(font)
    return face is not None and bytes(face.getmask(sign)) != _nothing(font)


def font_for(texts: Iterable[str]) -> tuple[Font | None, bool]:
    """A font for these texts (None: Pillow's own will do), and whether one can draw all of them.

    When none can, the log says which signs it was about.
    """
    visible = {sign for text in texts for sign in text if not sign.isascii() and not sign.isspace()}
    signs = sorted(sign for sign in visible if unicodedata.category(sign)[0] != "C")[:_MOST_SIGNS]
    if all(_draws(_PLAIN, sign) for sign in signs):
        return None, True
    for font in _fonts():
        if all(_draws(font, sign) for sign in signs):
            variable = "[wght]" in font or "-VF." in font
            plain = all(_draws(font, sign) for sign in "Aa09%")
            return Font(font, _of_collection(font, signs), variable, plain), True
    scripts = sorted({unicodedata.name(sign, "?").partition(" ")[0].capitalize() for sign in signs})
    _log.warning("no font here can draw %s together in a chart; %s", ", ".join(scripts), _REMEDY)
    return None, False


def _of_collection(font: str, signs: Iterable[str]) -> int:
    """Which font of a collection: Chinese characters have other shapes in Korean and in Chinese."""
    if not Path(font).name.startswith("NotoSansCJK"):
        return 0
    names = {unicodedata.name(sign, "?").partition(" ")[0] for sign in signs}
    if "HANGUL" in names:
        return 1
    return 0 if names & {"HIRAGANA", "KATAKANA"} else 2


_MIXED = [
    "plain = ImageFont.load_default(18)",
    "",
    "def font_of(part):",
    "    return plain if part.isascii() else font",
    "",
    "def parts(words):",
    "    return re.findall(r'[\\x00-\\x7f]+|[^\\x00-\\x7f]+', words)",
    "",
    "def text(x, y, words):",
    "    x -= sum(font_of(part).getlength(part) for part in parts(words)) / 2",
    "    for part in parts(words):",
    "        draw.text((x, y), part, font=font_of(part), fill='black', anchor='ls')",
    "        x += font_of(part).getlength(part)",
    "",
]
"""Lines of a program whose font has no ASCII: words are drawn part by part, on one base line."""


def bar_chart(title: str, target: str, font: Font | None, show: str, *, numbered: bool) -> list[str]:
    """Lines that draw `result`, a list of (label, count, value), into the file `target`."""
    face = ["font = ImageFont.load_default(18)"] if font is None else font.lines(18)
    label = "str(place + 1)" if numbered else "label"
    mixed = font is not None and not font.ascii
    length = "sum(font_of(part).getlength(part) for part in parts(label))" if mixed else "font.getlength(label)"

    def text(x: str, y: str, what: str, anchor: str) -> str:
        if mixed:
            return f"text({x}, {y}, {what})"
        return f'draw.text(({x}, {y}), {what}, font=font, fill="black", anchor="{anchor}")'

    return [
        "",
        *(["import re"] if mixed else []),
        "from PIL import Image, ImageDraw, ImageFont",
        "",
        *face,
        *(_MIXED if mixed else []),
        # Few bars share the whole width.
        "step = max(90, 400 // len(result))"
        if numbered
        else f"step = max(90, 400 // len(result), 14 + max(int({length}) for label, _, _ in result))",
        "width = max(480, 80 + step * len(result))",
        'image = Image.new("RGB", (width, 480), "white")',
        "draw = ImageDraw.Draw(image)",
        text("width / 2", "32" if mixed else "16", repr(title), "ma"),
        "top = max(value for _, _, value in result) or 1",
        "for place, (label, count, value) in enumerate(result):",
        "    middle, height = 40 + step * place + step / 2, max(0, 340 * value / top)",
        '    draw.rectangle((middle - step / 3, 420 - height, middle + step / 3, 420), fill="#4c72b0")',
        "    " + text("middle", "410 - height" if mixed else "414 - height", f'f"{show}"', "mb"),
        "    " + text("middle", "446" if mixed else "428", label, "ma"),
        'draw.line((40, 420, width - 40, 420), fill="black", width=2)',
        f"image.save({target!r})",
    ]
