"""The streaming steps of the math tutor's example, on both protocols."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.examples import PROTOCOLS, example, step

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_math_tutor_answers_while_one_watches(protocol: str, tmp_path: Path) -> None:
    folder = example("math-tutor", tmp_path)
    assert step(folder, "3-stream", "--protocol", protocol).endswith("The solution is x = 1.\n")


def test_the_math_tutor_talks(tmp_path: Path) -> None:
    said = step(example("math-tutor", tmp_path), "4-chat").splitlines()
    assert said[0] == "15 × 4 = 60."
    assert said[1] == "60 × 3 = 180."
    assert said[2].startswith("No, 180 is not a prime number")
