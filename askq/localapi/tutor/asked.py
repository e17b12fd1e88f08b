"""A question as the kinds see it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from askq.localapi.tutor.expressions import Expression, find
from askq.localapi.tutor.wording import NUMBER

_SIGNED = rf"(?:(?<![\w)])-)?(?<![a-z_.\d]){NUMBER}(?![\d.]*(?:st|nd|rd|th)\b)"
_SEPARATOR = r"(?:\s*(?:,\s*and\b|,|;|\band\b|&|\bor\b)\s*|\s+)"


@dataclass(frozen=True)
class Asked:
    """The plain text and what was found in it."""

    text: str

    @cached_property
    def expressions(self) -> tuple[Expression, ...]:
        """Every formula, equation and inequality; raises TooLarge."""
        return find(self.text)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """Every number, with its sign; `10th` is none."""
        return tuple(re.findall(_SIGNED, self.text))

    @cached_property
    def listed(self) -> tuple[str, ...]:
        """The numbers of a list, if the text has one and no numbers besides (but for how many the list has).

        `the mean of the 3 numbers 4, 5 and 9` has one; `120 km in 2 hours at 60` has none.
        """
        runs = list(re.finditer(rf"{_SIGNED}(?:{_SEPARATOR}{_SIGNED})+", self.text))
        if not runs:
            return ()
        longest = max(runs, key=lambda run: len(run[0]))
        listed = tuple(re.findall(_SIGNED, longest[0]))
        before, after = self.text[: longest.start()], self.text[longest.end() :]
        if re.search(r"[-+*/^%=<>]\s*$", before) or re.match(r"\s*[-+*/^%=<>]", after) or re.findall(_SIGNED, after):
            return ()
        return listed if all(other == str(len(listed)) for other in re.findall(_SIGNED, before)) else ()

    def match(self, pattern: str) -> re.Match[str] | None:
        """The first place that fits."""
        return re.search(pattern, self.text)

    def has(self, pattern: str) -> bool:
        """Whether there is one."""
        return self.match(pattern) is not None

    @property
    def equations(self) -> tuple[Expression, ...]:
        """What has one equals sign and something to find."""
        return tuple(found for found in self.expressions if found.is_equation)

    @property
    def values(self) -> tuple[Expression, ...]:
        """Equations such as `x = 3`."""
        return tuple(
            found
            for found in self.equations
            if len(found.sides[0]) == 1 and len(found.variables) == 1 and found.sides[0].isalpha()
        )

    @property
    def formula(self) -> Expression | None:
        """The formula that the question is about: not a lone letter or number if there is more, and not `x = 3`."""
        values = self.values
        candidates = [found for found in self.expressions if found.variables and found not in values]
        return next((found for found in candidates if not found.bare), candidates[0] if candidates else None)
