"""Responses under ids of the client's own (`--client-ids`), as the real SDK sees them over a real socket."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.contract.localapi_sdk_stage import Stage, stage

CHOSEN = "resp_0123456789abcdef0123456789abcdef"


async def create(it: Stage, chosen: Any, **fields: Any) -> Any:
    return await it.respond("Why?", extra_body={"request_id": chosen}, **fields)


async def test_the_clients_id_is_the_responses() -> None:
    async with stage(client_ids=True) as it:
        made = await create(it, CHOSEN)
        assert made.id == CHOSEN
        assert (await it.client.responses.retrieve(CHOSEN)).status == "queued"
        it.clock.advance(60)
        assert (await it.client.responses.retrieve(CHOSEN)).output_text == "Answer to: Why?"
        assert [entry.id for entry in await it.server.api.storage.ledger(0, 10)] == [CHOSEN]
        assert (await it.respond("Why?")).id not in ("", CHOSEN), "whoever chooses none gets one"
        await it.client.responses.delete(CHOSEN)
        with pytest.raises(openai.NotFoundError):
            await it.client.responses.retrieve(CHOSEN)


async def test_an_id_is_given_once() -> None:
    async with stage(client_ids=True) as it:
        await create(it, CHOSEN)
        with pytest.raises(openai.BadRequestError, match="exists already"):
            await create(it, CHOSEN)
        assert len(await it.server.api.storage.ledger(0, 10)) == 1


@pytest.mark.parametrize("wrong", ["", "0123", "run_1", "resp_", "resp_/../x", "resp_" + "x" * 60, 7, ["resp_1"]])
async def test_what_is_no_id_is_refused(wrong: Any) -> None:
    async with stage(client_ids=True) as it:
        with pytest.raises(openai.BadRequestError, match="request_id"):
            await create(it, wrong)
        assert await it.server.api.storage.ledger(0, 10) == []


async def test_the_models_say_that_ids_are_taken_and_else_they_do_not() -> None:
    for given, owner in ((True, "vllm"), (False, "askq-local-api")):
        async with stage(client_ids=given) as it:
            assert {model.owned_by for model in (await it.client.models.list()).data} == {owner}
            assert (await it.client.models.retrieve("any")).owned_by == owner


async def test_without_the_option_the_field_is_unknown_and_with_it_others_still_are() -> None:
    async with stage() as it:
        with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'request_id'"):
            await create(it, CHOSEN)
    async with stage(client_ids=True) as it:
        with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'request_di'"):
            await it.respond("Why?", extra_body={"request_di": CHOSEN})
        with pytest.raises(openai.BadRequestError, match="Unknown parameter: 'request_id'"):
            await it.beta.threads.create_and_run(assistant_id=await it.assistant(), extra_body={"request_id": CHOSEN})


async def test_an_id_survives_a_restart(tmp_path: Any) -> None:
    for _ in range(2):
        async with stage(client_ids=True, data=str(tmp_path)) as it:
            if await it.server.api.storage.ledger(0, 10):
                assert (await it.client.responses.retrieve(CHOSEN)).id == CHOSEN
            else:
                await create(it, CHOSEN)
    assert list(tmp_path.iterdir())
