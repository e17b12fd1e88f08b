"""A chart is drawn where programs are shut in: its font is the one file beside its folder that they may read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from askq.localapi.tutor import charts
from askq.localapi.tutor.charts import bar_chart, font_for
from askq.localapi.tutor.sandbox import Limits, Sandbox

LIMITS = Limits(
    seconds=20,
    cpu_seconds=10,
    memory_bytes=1 << 30,
    output_bytes=1 << 16,
    file_bytes=1 << 20,
    folder_bytes=1 << 21,
    files=20,
)


@pytest.mark.parametrize("labels", [["여성", "남성"], ["กรุงเทพ 1", "เชียงใหม่"]], ids=["Korean", "Thai"])
async def test_a_chart_with_a_packaged_font_is_drawn_in_the_sandbox(
    labels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charts, "_FOLDERS", ())
    charts._fonts.cache_clear()
    font, _ = font_for(labels)
    assert font is not None
    lines = [f"result = {[(label, 1, 0.5) for label in labels]!r}"]
    lines += bar_chart("rate", "chart.png", font, "{value:.1%}", numbered=False)
    sandbox = Sandbox()
    try:
        run = await sandbox.run("\n".join(lines), folder=tmp_path, readable=[font.path], limits=LIMITS)
    finally:
        sandbox.close()
    assert (run.ended, run.output) == ("ok", "")
    with Image.open(tmp_path / "chart.png") as image:
        assert sum(image.convert("L").crop((40, 425, 440, 470)).histogram()[:128]) > 60, "labels stand under the bars"
