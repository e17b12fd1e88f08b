"""Files that the code of a run has made: blobs until the run ends, then filed where its protocol has them."""

from __future__ import annotations

import base64
import dataclasses
import mimetypes
from collections.abc import Callable, Iterable, Iterator

from askq.localapi.engines.base import Code, Outcome, Product
from askq.localapi.files.blobs import Blob, Blobs
from askq.localapi.files.containers import FOLDER, Containers
from askq.localapi.files.filing import Files
from askq.localapi.wire import JsonObject, derived_id

LINK = f"sandbox:{FOLDER}/"
"""How a text of the model points to a file it has made."""


class Products:
    """Keeps and files what code has made."""

    def __init__(self, files: Files, containers: Containers) -> None:
        self._files = files
        self._containers = containers
        self._blobs = files.blobs

    @property
    def blobs(self) -> Blobs:
        """Where the bytes are."""
        return self._blobs

    def stow(self, outcome: Outcome) -> Outcome:
        """The outcome with its products' bytes put away: what is stored with a run is their names only."""

        def stowed(product: Product) -> Product:
            if product.content is None:
                return product
            blob = self._blobs.put(product.content)
            return Product(name=product.name, blob=blob.digest, size=blob.size)

        return _mapped(outcome, stowed)

    def hold(self, outcome: Outcome | None) -> None:
        """Count the references of an outcome that was loaded."""
        for product in _products(outcome):
            self._blobs.hold(product.blob)

    def release(self, outcome: Outcome | None) -> None:
        """Let the products of an outcome go."""
        for product in _products(outcome):
            self._blobs.let_go(product.blob)

    def file_all(self, owner: str, number: int, products: Iterable[Product]) -> list[JsonObject]:
        """Make files of `/v1/files` of the products of a run's `number`-th output."""
        return [
            self._files.add(
                derived_id("file", owner, number * 1000 + index).replace("_", "-"),
                product.name,
                self._shared(product),
                purpose="assistants_output",
            )
            for index, product in enumerate(products)
        ]

    def contain_all(self, container_id: str, owner: str, number: int, products: Iterable[Product]) -> list[JsonObject]:
        """Put the products of a response's `number`-th output into its container."""
        return [
            self._containers.add_file(
                container_id,
                derived_id("cfile", owner, number * 1000 + index),
                product.name,
                self._shared(product),
                source="assistant",
            )
            for index, product in enumerate(products)
        ]

    def container(self, container_id: str, *, gone_after: float | None = None) -> None:
        """Make sure that a response's container is there; it may have to go at once, or soon."""
        self._containers.add(container_id)
        if gone_after is not None:
            self._containers.expire(container_id, after=gone_after)

    def contain_given(self, container_id: str, owner: str, file_ids: Iterable[str]) -> None:
        """Put copies of uploaded files into a container, unless there are files of their names."""
        taken = {file["path"] for file in self._containers.files(container_id)}
        for number, file_id in enumerate(file_ids):
            file = self._files.get(file_id)
            if file is not None and f"{FOLDER}/{file['filename']}" not in taken:
                new_id = derived_id("cfile", f"{owner}/given", number)
                blob = self._files.share(file)
                self._containers.add_file(container_id, new_id, file["filename"], blob, source="user")

    def data_url(self, product: Product) -> str:
        """An image as a response shows it."""
        media = mimetypes.guess_type(product.name)[0] or "image/png"
        return f"data:{media};base64,{base64.b64encode(self._blobs.read(product.blob)).decode()}"

    def _shared(self, product: Product) -> Blob:
        self._blobs.hold(product.blob)
        return Blob(product.blob, product.size)


def links(text: str, names: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Where a text points to files of these names: start, end and name, in the order of the text."""
    found: list[tuple[int, int, str]] = []
    for name in sorted(set(names), key=len, reverse=True):
        link, start = LINK + name, 0
        while (at := text.find(link, start)) >= 0:
            start = at + len(link)
            if not any(begin <= at < end for begin, end, _ in found):
                found.append((at, start, name))
    return iter(sorted(found))


def stripped(outcome: Outcome) -> Outcome:
    """The outcome holding nothing any more."""
    return _mapped(outcome, lambda product: dataclasses.replace(product, blob=""))


def _products(outcome: Outcome | None) -> Iterator[Product]:
    for output in outcome.outputs if outcome is not None else ():
        if isinstance(output, Code):
            yield from (product for product in (*output.images, *output.files) if product.blob)


def _mapped(outcome: Outcome, change: Callable[[Product], Product]) -> Outcome:
    outputs = tuple(
        dataclasses.replace(output, images=tuple(map(change, output.images)), files=tuple(map(change, output.files)))
        if isinstance(output, Code)
        else output
        for output in outcome.outputs
    )
    return dataclasses.replace(outcome, outputs=outputs)
