"""Bar charts by Pillow: the lines of a program that draws one, and a font that has the signs it needs."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from pathlib import Path

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
_PROBES = {"HANGUL": "한", "CJK": "中", "HIRAGANA": "か", "KATAKANA": "カ"}


@functools.cache
def _fonts() -> tuple[str, ...]:
    """The known fonts there are, best first."""
    found: dict[str, str] = {}
    for folder in _FOLDERS:
        for path in Path(folder).expanduser().rglob("*"):
            if path.name in _KNOWN:
                found.setdefault(path.name, str(path))
    return tuple(found[name] for name in _KNOWN if name in found)


@functools.cache
def _draws(font: str, sign: str) -> bool:
    from PIL import ImageFont

    try:
        face = ImageFont.truetype(font, 16)
        # What a font does not have it draws as its sign for nothing.
        return bytes(face.getmask(sign)) != bytes(face.getmask("\U0010fffe"))
    except OSError:
        return False


def font_for(texts: Iterable[str]) -> tuple[str | None, bool]:
    """A font file for these texts (None: Pillow's own will do), and whether they can be drawn at all."""
    signs = {sign for text in texts for sign in text if not sign.isascii()}
    if not signs:
        return None, True
    scripts = {unicodedata.name(sign, "?").partition(" ")[0] for sign in signs}
    needed = {_PROBES.get(script, sign) for script, sign in zip(sorted(scripts), sorted(signs), strict=False)} | {
        _PROBES[script] for script in scripts if script in _PROBES
    }
    for font in _fonts():
        if all(_draws(font, sign) for sign in needed):
            return font, True
    return None, False


def bar_chart(title: str, target: str, font: str | None, show: str, *, numbered: bool) -> list[str]:
    """Lines that draw `result`, a list of (label, count, value), into the file `target`."""
    face = f"ImageFont.truetype({font!r}, 18)" if font else "ImageFont.load_default(18)"
    label = "str(place + 1)" if numbered else "label"
    return [
        "",
        "from PIL import Image, ImageDraw, ImageFont",
        "",
        f"font = {face}",
        "step = max(90, 14 + max(int(font.getlength(label)) for label, _, _ in result))"
        if not numbered
        else "step = 90",
        "width = max(480, 80 + step * len(result))",
        'image = Image.new("RGB", (width, 480), "white")',
        "draw = ImageDraw.Draw(image)",
        f'draw.text((width / 2, 16), {title!r}, font=font, fill="black", anchor="ma")',
        "top = max(value for _, _, value in result) or 1",
        "for place, (label, count, value) in enumerate(result):",
        "    middle, height = 40 + step * place + step / 2, max(0, 340 * value / top)",
        '    draw.rectangle((middle - 30, 420 - height, middle + 30, 420), fill="#4c72b0")',
        f'    draw.text((middle, 414 - height), f"{show}", font=font, fill="black", anchor="mb")',
        f'    draw.text((middle, 428), {label}, font=font, fill="black", anchor="ma")',
        'draw.line((40, 420, width - 40, 420), fill="black", width=2)',
        f"image.save({target!r})",
    ]
