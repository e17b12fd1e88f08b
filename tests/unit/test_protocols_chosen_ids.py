"""Responses under ids of our own, where a server takes them (vLLM, SGLang): a lost create is looked for by its id."""

from __future__ import annotations

import httpx2
import pytest

from tests.unit.protocols_stage import HTML, Service, ask
from worker.protocols.base import Ambiguous, Ask, Blocked, Found, Limited, RunState, Search
from worker.protocols.responses import ResponsesProtocol
from worker.protocols.responses_bodies import chosen_id

CREATED = {"id": "resp_theirs", "object": "response", "status": "queued", "model": "m", "output": []}


@pytest.mark.parametrize("owner", ["vllm", "sglang"])
async def test_a_server_that_takes_ids_gets_ours_with_every_create(owner: str) -> None:
    service = Service()
    service.owner = owner
    for attempt in (1, 2):
        service.says({**CREATED, "id": chosen_id(ask(attempt=attempt))})
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        made = [await protocol.start(ask(attempt=attempt), "", None) for attempt in (1, 2)]
    assert service.calls == ["POST /responses"] * 2
    assert [service.body(number)["request_id"] for number in (0, 1)] == [status.run_id for status in made]
    assert made[0].run_id != made[1].run_id, "each intent has an id of its own"


@pytest.mark.parametrize("owner", ["system", "openai", "askq-local-api", ""])
async def test_a_server_that_does_not_say_so_gets_none(owner: str) -> None:
    service = Service()
    service.owner = owner
    service.says(CREATED)
    async with service.client() as client:
        await ResponsesProtocol(client).start(ask(), "conv_1", None)
    assert "request_id" not in service.body()


async def test_openai_is_not_even_asked() -> None:
    service = Service()
    service.owner = None
    service.says(CREATED)
    async with service.client("https://api.openai.com/v1") as client:
        await ResponsesProtocol(client).start(ask(), "conv_1", None)
    assert service.calls == ["POST /responses"]


def test_an_id_is_the_intents_and_looks_like_one() -> None:
    ids = {chosen_id(each) for each in (ask(), ask(attempt=2), ask(job_id="b_1.r2"))}
    assert len(ids) == 3
    assert chosen_id(ask()) == chosen_id(ask(text="whatever", resets=5))
    assert all(each.startswith("resp_") and each[5:].isalnum() and len(each) == 37 for each in ids)


async def find(service: Service, asked: Ask) -> Found:
    async with service.client() as client:
        return await ResponsesProtocol(client).find_started(asked, "conv_1")


async def test_a_lost_create_is_found_under_its_id() -> None:
    service, asked = Service(), ask(attempt=3)
    service.owner = "vllm"
    service.says({**CREATED, "id": chosen_id(asked), "status": "in_progress"})
    assert await find(service, asked) == Found(search=Search.FOUND, run_ids=(chosen_id(asked),))
    assert service.calls == [f"GET /responses/{chosen_id(asked)}"], "and not among the items of a conversation"


async def test_what_is_not_there_was_not_started() -> None:
    service, asked = Service(), ask()
    service.owner = "vllm"
    service.refuses(404, f"Response with id '{chosen_id(asked)}' not found.")
    assert await find(service, asked) == Found(search=Search.NOT_STARTED)


@pytest.mark.parametrize("status", [500, 503])
async def test_a_look_that_fails_proves_nothing(status: int) -> None:
    service = Service()
    service.owner = "vllm"
    service.refuses(status, "oops")
    with pytest.raises(Ambiguous):
        await find(service, ask())


async def test_a_page_of_a_proxy_proves_nothing_either() -> None:
    service = Service()
    service.owner = "vllm"
    service.says(text=HTML, status=404)
    with pytest.raises(Ambiguous):
        await find(service, ask())


@pytest.mark.parametrize("broken", ["status", "html", "reset", "limited"])
async def test_a_failing_look_at_the_models_sends_nothing_that_costs(broken: str) -> None:
    service = Service()
    service.owner = None
    match broken:
        case "status":
            service.refuses(503, "loading")
        case "html":
            service.says(text=HTML)
        case "reset":
            service.fails(httpx2.ReadError("reset"))
        case "limited":
            service.refuses(429, "slow down")
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        with pytest.raises(Limited):
            await protocol.start(ask(), "", None)
        assert service.calls == ["GET /models"]
        service.says({"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]})
        service.says({**CREATED, "id": chosen_id(ask())})
        status = await protocol.start(ask(), "", None)
    assert (status.state, status.run_id) == (RunState.PENDING, chosen_id(ask())), "and is repeated with the next"
    assert service.body()["request_id"] == chosen_id(ask())


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (501, "Not implemented"),
        (400, "No such parameter"),
        (403, "no"),
    ],
)
async def test_a_server_that_shows_no_models_takes_no_ids_and_is_asked_once(status: int, message: str) -> None:
    service = Service()
    service.owner = None
    service.refuses(status, message)
    service.says(CREATED)
    service.says(CREATED)
    async with service.client() as client:
        protocol = ResponsesProtocol(client)
        for _ in range(2):
            assert (await protocol.start(ask(), "conv_1", None)).run_id == "resp_theirs"
    assert service.calls == ["GET /models", "POST /responses", "POST /responses"]
    assert "request_id" not in service.body()


async def test_a_rejected_key_is_one_at_the_models_too() -> None:
    service = Service()
    service.owner = None
    service.refuses(401, "Incorrect API key provided")
    async with service.client() as client:
        with pytest.raises(Blocked) as raised:
            await ResponsesProtocol(client).start(ask(), "", None)
    assert raised.value.code == "rejected_key"
    assert service.calls == ["GET /models"]
