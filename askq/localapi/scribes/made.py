"""What tools made, in the words of the Assistants protocol: steps with files, and messages that show and cite them."""

from __future__ import annotations

from dataclasses import dataclass, field

from askq.localapi.engines.base import Code, Search, Text
from askq.localapi.files.products import LINK, Products, links
from askq.localapi.wire import JsonObject, derived_id

RESULT_CONTENT = "step_details.tool_calls[*].file_search.results[*].content"
"""The include without which the results of a search have no text."""


@dataclass(slots=True)
class Made:
    """The files of the code so far: the next message shows the pictures, and may point to any of the others."""

    images: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """File ids by name."""

    def later(self) -> Made:
        """For the message after this one: each picture is shown once."""
        return Made(files=self.files)

    def content(self, output: Text) -> list[JsonObject]:
        """The parts of a message: pictures first, then the text with its annotations."""
        parts: list[JsonObject] = [
            {"type": "image_file", "image_file": {"file_id": file_id, "detail": "auto"}} for file_id in self.images
        ]
        if output.refusal:
            return [*parts, {"type": "refusal", "refusal": output.value}]
        value, annotations = _cited(output)
        for start, end, name in links(value, self.files):
            annotations.append(
                {
                    "type": "file_path",
                    "text": LINK + name,
                    "start_index": start,
                    "end_index": end,
                    "file_path": {"file_id": self.files[name]},
                }
            )
        return [*parts, {"type": "text", "text": {"value": value, "annotations": annotations}}]

    def attachments(self) -> list[JsonObject]:
        """The files made since the last message."""
        return [{"file_id": file_id, "tools": [{"type": "code_interpreter"}]} for file_id in self.fresh]


def _cited(output: Text) -> tuple[str, list[JsonObject]]:
    """The text with a marker for each citation, and their annotations."""
    value, annotations, done = "", list(output.annotations), 0
    for number, quote in enumerate(sorted(output.quotes, key=lambda quote: quote.at)):
        value += output.value[done : quote.at]
        done = quote.at
        marker = f"\u3010{number}:{number}\u2020{quote.filename}\u3011"
        annotations.append(
            {
                "type": "file_citation",
                "text": marker,
                "start_index": len(value),
                "end_index": len(value) + len(marker),
                "file_citation": {"file_id": quote.file_id},
            }
        )
        value += marker
    return value + output.value[done:], annotations


def code_call(products: Products, owner: str, number: int, code: Code, made: Made) -> JsonObject:
    """The tool call of a step; what the code made is filed and noted in `made`."""
    images = [file["id"] for file in products.file_all(owner, number, code.images)]
    files = products.file_all(owner, number * 1000 + 500, code.files)
    made.images += images
    made.fresh += [file["id"] for file in files]
    made.files.update({file["filename"]: file["id"] for file in files})
    made.files.update({image.name: file_id for image, file_id in zip(code.images, images, strict=True)})
    outputs: list[JsonObject] = [{"type": "logs", "logs": code.logs}] if code.logs or not images else []
    outputs += [{"type": "image", "image": {"file_id": file_id}} for file_id in images]
    return {
        "id": derived_id("call", owner, number),
        "type": "code_interpreter",
        "code_interpreter": {"input": code.source, "outputs": outputs},
    }


def search_call(owner: str, number: int, search: Search) -> JsonObject:
    """The tool call of a step that searched."""
    results = [
        {
            "file_id": hit.file_id,
            "file_name": hit.filename,
            "score": hit.score,
            "content": [{"type": "text", "text": hit.text}],
        }
        for hit in search.hits
    ]
    return {
        "id": derived_id("call", owner, number),
        "type": "file_search",
        "file_search": {"ranking_options": {"ranker": "auto", "score_threshold": 0.0}, "results": results},
    }


def step_wire(step: JsonObject, include: frozenset[str]) -> JsonObject:
    """A step as it is given out: the text of search results only where it was asked for."""
    calls = step["step_details"].get("tool_calls", [])
    if RESULT_CONTENT in include or not any(call["type"] == "file_search" for call in calls):
        return step
    bare = [
        {
            **call,
            "file_search": {
                **call["file_search"],
                "results": [
                    {name: value for name, value in result.items() if name != "content"}
                    for result in call["file_search"]["results"]
                ],
            },
        }
        if call["type"] == "file_search"
        else call
        for call in calls
    ]
    return {**step, "step_details": {**step["step_details"], "tool_calls": bare}}
