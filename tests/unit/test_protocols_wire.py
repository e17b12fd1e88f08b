"""Replies as plain JSON, lists over their pages, and calls whose failure is an answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from askq.jobs.objects import Kind
from tests.unit.protocols_stage import HTML, Service
from worker.protocols.assistants import AssistantsProtocol
from worker.protocols.base import Ambiguous, Blocked, CallError, Gone, Limited
from worker.protocols.fields import a_count, a_status, a_text, an_object, joined, objects
from worker.protocols.filing import Filing
from worker.protocols.responses import ResponsesProtocol
from worker.protocols.wire import Reply, Wire


def listing(client: AsyncOpenAI) -> Any:
    return lambda query: client.conversations.items.with_raw_response.list("conv_1", extra_query=query)


async def every(service: Service) -> list[str]:
    async with service.client() as client:
        entries = await Wire(client).every(listing(client), names="conv_1")
    return [str(entry.get("id")) for entry in entries]


def queries(service: Service) -> list[dict[str, str]]:
    return [dict(request.url.params) for request in service.requests]


async def test_a_list_is_read_over_all_its_pages_oldest_first() -> None:
    service = Service()
    service.lists({"id": "a"}, {"id": "b"}, more=True)
    service.lists({"id": "c"})
    assert await every(service) == ["a", "b", "c"]
    assert queries(service) == [
        {"limit": "100", "order": "asc"},
        {"limit": "100", "order": "asc", "after": "b"},
    ]


async def test_a_server_that_repeats_its_page_is_not_asked_for_ever() -> None:
    service = Service()
    for _ in range(2):
        service.lists({"id": "a"}, {"id": "b"}, more=True)
    assert await every(service) == ["a", "b"]


async def test_entries_without_ids_cannot_be_paged() -> None:
    service = Service()
    service.lists({"x": 1}, {"x": 2}, more=True)
    assert await every(service) == ["None", "None"]


async def test_a_server_that_does_not_know_the_order_is_turned_round() -> None:
    service = Service()
    service.lists({"id": "new", "created_at": 30}, {"id": "old", "created_at": 10})
    assert await every(service) == ["old", "new"]


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"id": "a"}}, {"error": "later"}, {"id": "conv_1"}])
async def test_what_is_no_list_is_not_taken_for_an_empty_one(body: object) -> None:
    service = Service()
    service.says(body)
    with pytest.raises(Ambiguous, match="the reply is no list"):
        await every(service)


async def test_half_a_surrogate_pair_becomes_a_text_that_can_be_stored() -> None:
    service = Service()
    service.says(text='{"id": "resp_1", "text": "a\\ud83d b", "fine": "\\ud83d\\ude00"}')
    async with service.client() as client:
        reply = await Wire(client).call(client.responses.with_raw_response.retrieve("resp_1"), names="resp_1")
    assert reply.body == {"id": "resp_1", "text": "a? b", "fine": "😀"}


async def test_a_client_without_time_outs_has_no_bound() -> None:
    service = Service()
    service.says({"id": "resp_1"})
    async with service.client() as client:
        patient = client.with_options(timeout=None)
        reply = await Wire(patient).call(patient.responses.with_raw_response.retrieve("resp_1"))
    assert reply.body["id"] == "resp_1"


async def test_a_bare_number_bounds_a_call_too() -> None:
    service = Service()
    async with service.client() as client:
        never = client.with_options(timeout=0.0)

        async def wait_for_ever() -> Any:
            await asyncio.Event().wait()

        with pytest.raises(Ambiguous) as raised:
            await Wire(never).call(wait_for_ever())
    assert raised.value.code == "timeout"


def test_a_reply_must_show_what_it_is() -> None:
    Reply({"status": "queued"}, {}).require("status", "id")
    with pytest.raises(Ambiguous, match="the reply has neither status nor id"):
        Reply({"error": "busy"}, {}).require("status", "id")


def test_fields_of_any_type_are_read() -> None:
    odd = [None, "x", 7, -1, 1.5, float("nan"), float("inf"), True, [], {}, [1], {"a": 1}]
    assert [an_object(value) for value in odd[-3:]] == [{}, {}, {"a": 1}]
    assert objects([1, {"a": 1}, None]) == [{"a": 1}]
    assert [objects(value) for value in odd] == [[]] * len(odd)
    assert [a_text(value) for value in odd] == ["", "x", *[""] * 10]
    assert [a_count(value) for value in odd] == [0, 0, 7, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert (a_status("queued"), a_status(None), a_status("")) == ("queued", "unknown", "unknown")
    assert joined(["a", " ", "", "b"]) == "a\n\nb"
    assert joined(["", "\n"]) is None
    assert joined([]) is None


# The calls both adapters share

Protocols = pytest.mark.parametrize("kind", ["assistants", "responses"])


def adapter(kind: str, client: AsyncOpenAI) -> Any:
    return AssistantsProtocol(client) if kind == "assistants" else ResponsesProtocol(client)


@Protocols
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Cannot cancel run with status 'completed'."),
        (400, "Thread t already has an active run run_9."),
        (404, "No run found with id 'run_1'."),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (501, "Not implemented"),
    ],
)
async def test_a_refused_cancel_is_left_to_the_next_poll(
    kind: str, status: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    service.refuses(status, message)
    with caplog.at_level(logging.INFO, "worker.protocols"):
        async with service.client() as client:
            await adapter(kind, client).cancel("thread_1", "run_1")
    assert "run_1" in caplog.text


@Protocols
@pytest.mark.parametrize(("status", "error"), [(401, Blocked), (429, Limited), (500, Ambiguous), (403, Blocked)])
async def test_a_cancel_that_may_not_have_arrived_is_an_error(kind: str, status: int, error: type[CallError]) -> None:
    service = Service()
    service.refuses(status, "no")
    async with service.client() as client:
        with pytest.raises(error):
            await adapter(kind, client).cancel("thread_1", "run_1")


@Protocols
async def test_a_cancel_needs_no_readable_reply(kind: str) -> None:
    service = Service()
    service.says(text="")
    async with service.client() as client:
        await adapter(kind, client).cancel("thread_1", "run_1")
    assert service.calls == [
        "POST /threads/thread_1/runs/run_1/cancel" if kind == "assistants" else "POST /responses/run_1/cancel"
    ]


@Protocols
@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, '{"object": "list", "data": []}'),
        (404, '{"error": {"message": "Invalid URL (GET /v1/models)"}}'),
        (404, "404 page not found"),
        (405, '{"detail": "Method Not Allowed"}'),
    ],
)
async def test_a_service_with_or_without_models_is_there(kind: str, status: int, text: str) -> None:
    service = Service()
    service.owner = None
    service.says(status=status, text=text)
    async with service.client() as client:
        await adapter(kind, client).check()
    assert service.calls == ["GET /models"]


@Protocols
@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (401, '{"error": {"message": "Incorrect API key provided."}}', Blocked),
        (200, HTML, Ambiguous),
        (500, "{}", Ambiguous),
        (429, "{}", Limited),
    ],
)
async def test_a_check_tells_what_is_wrong(kind: str, status: int, text: str, error: type[CallError]) -> None:
    service = Service()
    service.owner = None
    service.says(status=status, text=text)
    async with service.client() as client:
        with pytest.raises(error):
            await adapter(kind, client).check()


@Protocols
async def test_a_check_of_an_address_that_is_none_fails(kind: str) -> None:
    service = Service()
    service.owner = None
    service.fails(httpx2.UnsupportedProtocol("Request URL is missing a protocol."))
    async with service.client() as client:
        with pytest.raises(Blocked) as raised:
            await adapter(kind, client).check()
    assert raised.value.code == "bad_address"


async def test_what_is_deleted_twice_is_deleted() -> None:
    service = Service()
    service.says({"deleted": True})
    service.refuses(404, "No thread found with id 'thread_1'.")
    service.refuses(404, "Invalid URL (DELETE /v1/threads/thread_1)")
    service.refuses(500, "no")
    async with service.client() as client:
        protocol = adapter("assistants", client)
        assert await protocol.delete(Kind.THREAD, "thread_1")
        assert not await protocol.delete(Kind.THREAD, "thread_1")
        with pytest.raises(Blocked, match="endpoint_gone"):
            # Nothing says that the thread is gone: this server cannot delete any.
            await protocol.delete(Kind.THREAD, "thread_1")
        with pytest.raises(Ambiguous):
            await protocol.delete(Kind.THREAD, "thread_1")


async def test_a_conversation_that_is_gone_is_deleted() -> None:
    service = Service()
    service.refuses(404, "Response with id 'resp_1' not found.")
    service.refuses(404, "Conversation with id 'conv_1' not found.")
    async with service.client() as client:
        assert not await adapter("responses", client).delete(Kind.RESPONSE, "resp_1")
        assert not await adapter("responses", client).delete(Kind.CONVERSATION, "conv_1")
    assert service.calls == ["DELETE /responses/resp_1", "GET /conversations/conv_1/items"]


@pytest.mark.parametrize("kind", Kind)
async def test_an_object_of_every_kind_can_be_deleted(kind: Kind) -> None:
    service = Service()
    if kind is Kind.CONVERSATION:
        service.lists()
    service.says({"deleted": True})
    async with service.client() as client:
        assert await adapter("responses", client).delete(kind, "x_1")
    places = {Kind.RESPONSE: "responses", Kind.VECTOR_STORE: "vector_stores"}
    assert service.calls[-1] == f"DELETE /{places.get(kind, f'{kind}s')}/x_1"


async def test_lists_tell_which_objects_are_an_askqs() -> None:
    service = Service()
    service.lists(
        {"id": "asst_1", "created_at": 7, "metadata": {"askq_digest": "d", "askq_home": "h"}},
        {"id": "asst_2", "created_at": 9, "metadata": {"askq_digest": "d"}},
        {"id": "asst_3", "created_at": 9, "metadata": {"mine": "yes"}},
        {"id": "asst_4", "created_at": 9, "metadata": None},
    )
    async with service.client() as client:
        found = await adapter("assistants", client).listed(Kind.ASSISTANT)
        with pytest.raises(Blocked):
            await adapter("assistants", client).listed(Kind.THREAD)
    assert [(made.id, made.home, made.created_at) for made in found] == [("asst_1", "h", 7.0), ("asst_2", None, 9.0)]
    assert {made.owner for made in found} == {"assistant:d"}


async def test_gone_is_not_reached_by_accident() -> None:
    """`Gone` needs an object that was named: a create without one can only miss the endpoint."""
    service = Service()
    service.refuses(404, "No.")
    async with service.client() as client:
        with pytest.raises(CallError) as raised:
            await Wire(client).call(client.conversations.with_raw_response.create())
    assert not isinstance(raised.value, Gone)


@pytest.mark.parametrize(
    ("status", "text"), [(204, ""), (200, ""), (200, "null"), (200, "OK"), (200, "{}"), (200, '{"deleted": true}')]
)
async def test_whatever_words_a_server_has_for_it_is_a_deletion(status: int, text: str) -> None:
    service = Service()
    service.says(status=status, text=text)
    async with service.client() as client:
        assert await AssistantsProtocol(client).delete(Kind.THREAD, "thread_1")


@pytest.mark.parametrize("text", [HTML, '{"deleted": false}', '{"deleted": tr'])
async def test_what_is_no_deletion_is_not_taken_for_one(text: str) -> None:
    """Its tombstone has to stay."""
    service = Service()
    service.says(text=text)
    service.says(text=text)
    async with service.client() as client:
        with pytest.raises(Ambiguous):
            await AssistantsProtocol(client).delete(Kind.THREAD, "thread_1")
        with pytest.raises(Ambiguous):
            await Filing(client).delete_file("file-1")


async def test_a_server_that_cannot_delete_is_not_said_to_have_deleted() -> None:
    service = Service()
    service.refuses(404, "Invalid URL (DELETE /v1/files/file-1)")
    service.refuses(404, "No such File object: file-1")
    async with service.client() as client:
        assert not await Filing(client).delete_file("file-1")
        assert await Filing(client).delete_file("file-1")
