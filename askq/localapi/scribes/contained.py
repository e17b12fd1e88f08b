"""What tools made, in the words of Responses: items of code and searches, and annotations that cite files."""

from __future__ import annotations

from askq.localapi.engines.base import Code, Outcome, Search, Text
from askq.localapi.files.products import Products, links
from askq.localapi.wire import JsonObject, derived_id
from askq.localapi.work import Work


class Contained:
    """The container of one response, and the files its code has put there."""

    def __init__(self, products: Products, work: Work, outcome: Outcome) -> None:
        self._products = products
        self._work = work
        self._gone_after = outcome.container_gone_s
        self._files: dict[str, JsonObject] = {}
        self._used = False

    @property
    def container_id(self) -> str:
        """The container that was named, or the response's own."""
        named: str | None = self._work.container
        return named or derived_id("cntr", self._work.id, 0)

    def code_item(self, code: Code, number: int) -> JsonObject:
        """The item of a piece of code; what it made is put into the container."""
        if not self._used:
            self._used = True
            self._products.container(self.container_id)
            self._products.contain_given(self.container_id, self._work.id, _given(self._work))
        made = (*code.images, *code.files)
        files = self._products.contain_all(self.container_id, self._work.id, number, made)
        self._files.update({product.name: file for product, file in zip(made, files, strict=True)})
        outputs: list[JsonObject] = [{"type": "logs", "logs": code.logs}] if code.logs or not code.images else []
        outputs += [{"type": "image", "url": self._products.data_url(image)} for image in code.images]
        return {
            "id": derived_id("ci", self._work.id, number),
            "type": "code_interpreter_call",
            "status": "completed",
            "code": code.source,
            "container_id": self.container_id,
            "outputs": outputs,
        }

    def annotations(self, output: Text) -> list[JsonObject]:
        """The annotations of a text: the engine's own, its quotes, and the files it points to."""
        return [
            *output.annotations,
            *(
                {"type": "file_citation", "file_id": quote.file_id, "filename": quote.filename, "index": quote.at}
                for quote in sorted(output.quotes, key=lambda quote: quote.at)
            ),
            *(
                {
                    "type": "container_file_citation",
                    "container_id": self.container_id,
                    "file_id": self._files[name]["id"],
                    "filename": name,
                    "start_index": start,
                    "end_index": end,
                }
                for start, end, name in links(output.value, self._files)
            ),
        ]

    def leave(self) -> None:
        """The response is written: the container may have to go."""
        if self._used and self._gone_after is not None:
            self._products.container(self.container_id, gone_after=self._gone_after)


def _given(work: Work) -> list[str]:
    """The files that the client wants in the container."""
    return [
        file_id
        for tool in work.body["tools"]
        if tool.get("type") == "code_interpreter" and isinstance(tool.get("container"), dict)
        for file_id in tool["container"].get("file_ids") or []
    ]


def search_item(owner: str, search: Search, number: int) -> JsonObject:
    """The item of a search."""
    return {
        "id": derived_id("fs", owner, number),
        "type": "file_search_call",
        "status": "completed",
        "queries": list(search.queries),
        "results": [
            {
                "file_id": hit.file_id,
                "filename": hit.filename,
                "score": hit.score,
                "text": hit.text,
                "attributes": hit.attributes,
            }
            for hit in search.hits
        ],
    }
