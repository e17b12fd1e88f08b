"""Which tool an attached file is for, and which files are refused."""

from __future__ import annotations

import pytest

from askq.files.kinds import (
    CODE,
    IMAGE,
    MOST_BYTES,
    MOST_IMAGE_BYTES,
    SEARCH,
    Unfit,
    check_image,
    check_searched,
    check_size,
    media_type,
    tool_for,
)


@pytest.mark.parametrize(
    ("name", "tools", "tool"),
    [
        ("a.csv", {CODE}, CODE),
        ("a.pdf", {CODE}, CODE),
        ("a.weird", {CODE}, CODE),
        ("a.png", {CODE}, CODE),
        ("a.pdf", {SEARCH}, SEARCH),
        ("a.PY", {SEARCH}, SEARCH),
        ("a.png", {SEARCH}, IMAGE),
        ("a.csv", {CODE, SEARCH}, CODE),
        ("a.pdf", {CODE, SEARCH}, SEARCH),
        ("a.json", {CODE, SEARCH}, CODE),
        ("a.jpeg", set(), IMAGE),
    ],
)
def test_the_tool_follows_from_the_name_and_the_assistant(name: str, tools: set[str], tool: str) -> None:
    assert tool_for(name, tools) == tool


@pytest.mark.parametrize(
    ("name", "tools", "message"),
    [
        ("a.csv", {SEARCH}, "file search cannot read .csv"),
        ("a.exe", {SEARCH}, "file search cannot read .exe"),
        ("noext", {SEARCH}, "a file without a suffix"),
        ("a.csv", set(), "no tool that reads files"),
        ("a.csv", {"web_search"}, "no tool that reads files"),
    ],
)
def test_what_no_tool_reads_is_refused_with_a_remedy(name: str, tools: set[str], message: str) -> None:
    with pytest.raises(Unfit, match=message) as caught:
        tool_for(name, tools)
    assert caught.value.remedy


def test_sizes_are_those_of_the_service() -> None:
    check_size(MOST_BYTES, CODE)
    check_size(MOST_IMAGE_BYTES, IMAGE)
    with pytest.raises(Unfit, match="empty"):
        check_size(0, CODE)
    with pytest.raises(Unfit, match="536,870,912"):
        check_size(MOST_BYTES + 1, SEARCH)
    with pytest.raises(Unfit, match="an image may have"):
        check_size(MOST_IMAGE_BYTES + 1, IMAGE)


def test_only_images_are_looked_at_and_only_texts_are_searched() -> None:
    check_image("A.PNG")
    check_searched("a.md")
    with pytest.raises(Unfit, match=r"\.tiff is no type of image"):
        check_image("a.tiff")
    with pytest.raises(Unfit):
        check_searched("a.zip")


def test_media_types_are_the_same_everywhere() -> None:
    assert [media_type(name) for name in ("a.csv", "A.PNG", "a.md", "a.unknownsuffix")] == [
        *("text/csv", "image/png", "text/markdown", "application/octet-stream")
    ]
