"""Which files and stores a question needs, and in which part of its request each goes. Functions that touch nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from askq.assistants.model import Assistant
from askq.files.kinds import CODE, SEARCH, purpose_of
from askq.files.model import Attachment, FileRef, Resources, StoreRef
from askq.jobs.library import Wish, file_item, store_item
from worker.protocols.base import Given, Image

_NONE = Resources()


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Items of the library, by the part of the request they go to."""

    code: tuple[Wish, ...] = ()
    store: Wish | None = None
    thread_code: tuple[Wish, ...] = ()
    thread_store: Wish | None = None
    thread_file_ids: tuple[str, ...] = ()
    """Ids that the assistant's file names itself."""
    thread_store_ids: tuple[str, ...] = ()
    own_store: bool = False
    """Whether the thread needs a store of its own: messages will add files to it, and no other thread may see them."""
    row_code: tuple[Wish, ...] = ()
    row_search: tuple[Wish, ...] = ()
    row_store: Wish | None = None
    images: tuple[Wish | str, ...] = ()
    """Items, or addresses."""

    def wishes(self) -> list[Wish]:
        """All items, each once."""
        found = [*self.code, *self.thread_code, *self.row_code, *self.row_search]
        found += [wish for wish in (self.store, self.thread_store, self.row_store) if wish is not None]
        found += [image for image in self.images if isinstance(image, Wish)]
        return list({wish.name: wish for wish in found}.values())

    def given(self, ids: Mapping[str, str], of_store: Sequence[str] = ()) -> Given:
        """The ids of the items, by name, as requests take them. `of_store`: the files of the thread's own store."""

        def all_of(wishes: Sequence[Wish]) -> tuple[str, ...]:
            return tuple(ids[wish.name] for wish in wishes)

        def one_of(wish: Wish | None) -> tuple[str, ...]:
            return () if wish is None else (ids[wish.name],)

        return Given(
            code=all_of(self.code),
            stores=one_of(self.store),
            thread_code=(*self.thread_file_ids, *all_of(self.thread_code)),
            thread_stores=(*self.thread_store_ids, *(() if self.own_store else one_of(self.thread_store))),
            thread_store_files=tuple(of_store),
            row_code=all_of(self.row_code),
            row_search=all_of(self.row_search),
            row_stores=one_of(self.row_store),
            images=tuple(
                Image(url=image) if isinstance(image, str) else Image(file_id=ids[image.name]) for image in self.images
            ),
        )


def needs(
    assistant: Assistant,
    own: Sequence[Attachment],
    *,
    protocol: str,
    earlier: Sequence[Attachment] = (),
    in_conversation: bool = False,
) -> Needs | None:
    """What a question with these attachments needs; None for nothing, as nearly all. `earlier` are those of the
    questions before it in its conversation, where the service does not remember them."""
    level, thread = assistant.resources or _NONE, assistant.thread_resources or _NONE
    if level is _NONE and thread is _NONE and not own and not earlier:
        return None
    every = list(dict.fromkeys([*earlier, *own]))
    code = [one.file for one in every if one.tool == CODE and one.file is not None]
    search = [one.file for one in every if one.tool == SEARCH and one.file is not None]
    images: list[Wish | str] = []
    for one in own:
        if one.is_image and one.file is not None:
            images.append(file_item(one.file, purpose_of(one.tool)))
        elif one.is_image and one.url is not None:
            images.append(one.url)
    found = Needs(
        code=_files(level.code),
        store=None if level.store is None else store_item(level.store),
        thread_code=_files(thread.code),
        thread_store=None if thread.store is None else store_item(thread.store),
        thread_file_ids=thread.file_ids,
        thread_store_ids=thread.vector_store_ids,
        own_store=False,
        row_code=_files(code),
        images=tuple(images),
    )
    if protocol == "assistants":
        own_store = found.thread_store is not None and (bool(search) or in_conversation)
        return dataclasses.replace(found, row_search=_files(search), own_store=own_store)
    if not search:
        return found
    # One store for all that the message and its thread bring: a request takes few.
    more = thread.store.files if thread.store is not None and thread.store.files is not None else None
    if more is not None:
        return dataclasses.replace(found, thread_store=None, row_store=store_item(StoreRef(files=(*more, *search))))
    return dataclasses.replace(found, row_store=store_item(StoreRef(files=tuple(search))))


def _files(refs: Sequence[FileRef]) -> tuple[Wish, ...]:
    return tuple(file_item(ref, purpose_of(CODE)) for ref in refs)
