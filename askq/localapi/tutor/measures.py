"""Programs for geometry and for units of measure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from askq.localapi.tutor.asked import Asked
from askq.localapi.tutor.expressions import exact
from askq.localapi.tutor.program import SHOW, Program, amount, decimal, program
from askq.localapi.tutor.wording import NUMBER


@dataclass(frozen=True, slots=True)
class _Formula:
    """What must be in the text, the inputs, the source, and the power of the unit of length the result has."""

    figure: str
    wished: str
    needs: tuple[str, ...]
    source: str
    power: int


_HERON = "sqrt((first + second + third)*(first + second - third)*(first - second + third)*(second + third - first))/4"
_HYPOTENUSE_GIVEN = rf"hypotenuse[a-z ]*?(?:of|is|=|:)? ?{NUMBER}"

_FORMULAS = (
    _Formula("circle", "area", ("radius",), "pi*radius**2", 2),
    _Formula("circle|wheel", "circumference|perimeter", ("radius",), "2*pi*radius", 1),
    _Formula("sphere|ball", "volume", ("radius",), "S(4)/3*pi*radius**3", 3),
    _Formula("sphere|ball", "surface", ("radius",), "4*pi*radius**2", 2),
    _Formula("cylinder", "volume", ("radius", "height"), "pi*radius**2*height", 3),
    _Formula("cylinder", "surface", ("radius", "height"), "2*pi*radius*(radius + height)", 2),
    _Formula(r"\bcone\b", "volume", ("radius", "height"), "pi*radius**2*height/3", 3),
    _Formula(r"cuboid|\bbox\b|prism|\btank\b", "volume", ("length", "width", "height"), "length*width*height", 3),
    _Formula(r"\bcube\b", "volume", ("side",), "side**3", 3),
    _Formula(r"\bcube\b", "surface", ("side",), "6*side**2", 2),
    _Formula("rectang", "area", ("length", "width"), "length*width", 2),
    _Formula("rectang", "perimeter", ("length", "width"), "2*(length + width)", 1),
    _Formula("rectang", "diagonal", ("length", "width"), "sqrt(length**2 + width**2)", 1),
    _Formula(_HYPOTENUSE_GIVEN, r"\bleg\b|\bside\b", ("hypotenuse", "leg"), "sqrt(hypotenuse**2 - leg**2)", 1),
    _Formula(rf"^(?!.*{_HYPOTENUSE_GIVEN})", "hypotenuse", ("leg", "other"), "sqrt(leg**2 + other**2)", 1),
    _Formula("triangle", "area", ("base", "height"), "base*height/2", 2),
    _Formula("triangle", "area", ("first", "second", "third"), _HERON, 2),
    _Formula("triangle", "perimeter", ("first", "second", "third"), "first + second + third", 1),
    _Formula(r"\bsquare\b", "area", ("side",), "side**2", 2),
    _Formula(r"\bsquare\b", "perimeter", ("side",), "4*side", 1),
    _Formula(r"\bsquare\b", "diagonal", ("side",), "sqrt(2)*side", 1),
)

_SAID = {
    "length": "length|long",
    "width": "width|breadth|wide",
    "height": "height|high|tall",
    "side": "sides?|edges?",
}
_LENGTHS = {
    "mm": "mm|millimet(?:er|re)s?",
    "cm": "cm|centimet(?:er|re)s?",
    "km": "km|kilomet(?:er|re)s?",
    "m": "m|met(?:er|re)s?",
    "in": "inch(?:es)?",
    "ft": "ft|feet|foot",
}
_BACKWARDS = (
    # The question gives the size and asks for an input: "A square has a perimeter of 20. How long is its side?"
    r"(?:area|perimeter|circumference|volume|surface|diagonal)"
    rf"(?:(?: of (?:an?|the|its) \w+)? (?:is|of)|[=:])? ?{NUMBER}"
    r"|(?:find|what is|calculate|determine) (?:the|its) (?:radius|diameter|length|width|height|base)\b"
)


def geometry(asked: Asked) -> Program | None:
    """The size of a figure from the lengths its formula needs, and from no others."""
    units = [name for name, words in _LENGTHS.items() if asked.has(rf"\d ?(?:{words})\b")]
    if len(units) > 1 or asked.has(_BACKWARDS):
        return None
    for formula in _FORMULAS:
        wished = asked.match(formula.wished)
        figure = asked.match(formula.figure)
        given = _given(asked, formula.needs) if wished and figure else None
        if wished and figure and given:
            of = f" of the {figure[0].replace('rectang', 'rectangle')}" if figure[0].isalpha() else ""
            return _measured(formula, given, wished[0] + of, units)
    return None


def _measured(formula: _Formula, given: list[str], name: str, units: list[str]) -> Program:
    unit = f" {units[0]}{f'^{formula.power}' if formula.power > 1 else ''}" if units else ""
    return program(
        *(f"{need} = {source}" for need, source in zip(formula.needs, given, strict=True)),
        f"result = {formula.source}",
        *SHOW,
        say=lambda out: f"The {name} is {amount(out, unit)}.",
    )


def _given(asked: Asked, needs: tuple[str, ...]) -> list[str] | None:
    """Source for each input: by its name; those that are not named get the other numbers, in the order of the text."""
    rest = list(asked.numbers)
    if len(rest) != len(needs) or any(number.startswith("-") for number in rest):
        return None
    if "diameter" in asked.text:
        if needs[0] != "radius":
            return None
        needs = ("diameter", *needs[1:])
    named: dict[str, str] = {}
    for need in needs:
        words = _SAID.get(need, need)
        found = asked.match(rf"\b(?:{words})(?: lengths?)?(?: [a-z])? ?(?:of|is|=|:)? ?({NUMBER})") or asked.match(
            rf"({NUMBER}) ?(?:[a-z]+ )?(?:{words})\b"
        )
        if found and found[1] in rest:
            named[need] = found[1]
            rest.remove(found[1])
    sources = {need: f"S({exact(named.get(need) or rest.pop(0))})" for need in needs}
    return [source + ("/2" if need == "diameter" else "") for need, source in sources.items()]


_UNITS: tuple[dict[str, str], ...] = (
    {
        "mm|millimet(?:er|re)s?": "0.001", "cm|centimet(?:er|re)s?": "0.01", "m|met(?:er|re)s?": "1",
        "km|kilomet(?:er|re)s?": "1000", "in|inch(?:es)?": "0.0254", "ft|foot|feet": "0.3048",
        "yd|yards?": "0.9144", "mi|miles?": "1609.344",
    },
    {
        "mg|milligrams?": "0.001", "g|grams?": "1", "kg|kilograms?|kilos?": "1000", "t|tonnes?": "1000000",
        "oz|ounces?": "28.349523125", "lbs?|pounds?": "453.59237",
    },
    {
        "s|secs?|seconds?": "1", "min|mins|minutes?": "60", "h|hrs?|hours?": "3600", "days?": "86400",
        "weeks?": "604800",
    },
    {"ml|millilit(?:er|re)s?": "0.001", "l|lit(?:er|re)s?": "1", "(?:us )?gallons?": "3.785411784"},
    {"km/h|kmh|kph": "1000/3600", "m/s": "1", "mph": "1609.344/3600"},
)  # fmt: skip
_SCALES = {"°? ?c|celsius": "°C", "°? ?f|fahrenheit": "°F", "k|kelvins?": "K"}
_TO_CELSIUS = {"°C": "degrees", "°F": "(degrees - 32)*5/9", "K": 'degrees - Rational("273.15")'}
_FROM_CELSIUS = {"°C": "celsius", "°F": "celsius*9/5 + 32", "K": 'celsius + Rational("273.15")'}
_UNIT = r"(°? ?[a-z]+(?:/[a-z]+)?)"


def conversion(asked: Asked) -> Program | None:
    """From one unit of measure to another of the same kind."""
    backwards = asked.match(
        rf"how many {_UNIT} (?:are |is |does )?(?:there )?(?:in |make |= )?(?:an? |one )?(-?{NUMBER})? ?{_UNIT}"
    )
    forwards = asked.match(rf"(-?{NUMBER}) ?{_UNIT} (?:to|in|into|as|=)(?: how many)? {_UNIT}")
    if backwards:
        number, here, there = backwards[2] or "1", backwards[3], backwards[1]
    elif forwards:
        number, here, there = forwards[1], forwards[2], forwards[3]
    else:
        return None
    if len(asked.numbers) > 1:
        return None
    if (scale := _of(here, _SCALES)) and (target := _of(there, _SCALES)):
        return program(
            f"degrees = S({exact(number)})",
            f"celsius = {_TO_CELSIUS[scale]}",
            f"result = {_FROM_CELSIUS[target]}",
            *SHOW,
            say=lambda out: f"{number} {scale} is {decimal(out)} {target}.",
        )
    for units in _UNITS:
        if (size := _of(here, units)) and (other := _of(there, units)):
            return program(
                f"result = S({exact(number)})*({_size(size)})/({_size(other)})",
                *SHOW,
                say=lambda out: f"{number} {here} is {decimal(out)} {there}.",
            )
    return None


def _of(unit: str, table: dict[str, str]) -> str | None:
    return next((meaning for words, meaning in table.items() if re.fullmatch(words, unit.strip())), None)


def _size(text: str) -> str:
    return "/".join(f'Rational("{part}")' for part in text.split("/"))
