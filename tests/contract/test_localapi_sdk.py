"""What holds for all of the local API, as the real OpenAI SDK sees it over a real socket: keys, models, the ledger."""

from __future__ import annotations

import typing

import openai
import pytest
from openai.types.beta import assistant_create_params, thread_create_and_run_params, thread_create_params
from openai.types.beta.threads import message_create_params, run_create_params
from openai.types.responses import response_create_params

from askq.localapi.routes import assistants as assistant_routes
from askq.localapi.routes import responses as response_routes
from askq.localapi.routes import runs as run_routes
from tests.contract.localapi_sdk_stage import Stage, it, stage

__all__ = ["it"]


async def test_models_are_listed_and_any_name_is_accepted(it: Stage) -> None:
    assert [model.id async for model in it.client.models.list()] == ["askq-script"]
    assert (await it.client.models.retrieve("anything/at-all")).id == "anything/at-all"


async def test_with_a_list_of_models_others_do_not_exist() -> None:
    async with stage(models=("gpt-test",)) as it:
        assert [model.id async for model in it.client.models.list()] == ["gpt-test"]
        with pytest.raises(openai.NotFoundError, match="'gpt-none' does not exist") as refused:
            await it.client.models.retrieve("gpt-none")
        assert refused.value.code == "model_not_found"
        await it.assistant()
        with pytest.raises(openai.BadRequestError, match="'gpt-none' does not exist"):
            await it.respond(model="gpt-none")
        with pytest.raises(openai.BadRequestError, match="'gpt-none' does not exist"):
            await it.beta.assistants.create(model="gpt-none")


async def test_a_wrong_key_is_refused_with_the_envelope() -> None:
    async with stage(key="right-key") as it:
        with pytest.raises(openai.AuthenticationError) as refused:
            await it.client.models.list()
        assert refused.value.code == "invalid_api_key"
        assert "right-key" not in str(refused.value)
        assert (await it.client.with_options(api_key="right-key").models.list()).data


async def test_assistants_need_the_beta_header(it: Stage) -> None:
    with pytest.raises(openai.BadRequestError, match="You must provide the 'OpenAI-Beta' header"):
        await it.beta.threads.create(extra_headers={"OpenAI-Beta": "assistants=v1"})
    with pytest.raises(openai.BadRequestError, match="You must provide the 'OpenAI-Beta' header"):
        await it.beta.assistants.list(extra_headers={"OpenAI-Beta": openai.Omit()})


async def test_every_reply_has_a_request_id(it: Stage) -> None:
    raw = await it.client.models.with_raw_response.list()
    assert raw.headers["x-request-id"].startswith("req_")
    with pytest.raises(openai.NotFoundError) as refused:
        await it.client.responses.retrieve("resp_none")
    assert str(refused.value.request_id).startswith("req_")


async def test_other_endpoints_do_not_exist(it: Stage) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET /v1/batches\)"):
        await it.client.batches.list()


def test_the_parameters_are_those_of_the_sdk() -> None:
    def names(params: type) -> set[str]:
        return set(typing.get_type_hints(params))

    assert names(assistant_create_params.AssistantCreateParams) == assistant_routes.PARAMETERS
    assert names(run_create_params.RunCreateParamsNonStreaming) - {"include"} == run_routes.RUN_PARAMETERS
    assert (
        names(thread_create_and_run_params.ThreadCreateAndRunParamsNonStreaming) == run_routes.THREAD_AND_RUN_PARAMETERS
    )
    assert names(response_create_params.ResponseCreateParamsNonStreaming) <= response_routes.PARAMETERS
    assert names(thread_create_params.ThreadCreateParams) == {"messages", "metadata", "tool_resources"}
    assert names(message_create_params.MessageCreateParams) == {"role", "content", "attachments", "metadata"}


async def test_idempotency_keys_are_ignored_unless_asked_for(it: Stage) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await it.respond(extra_headers=headers)
    assert (await it.respond(extra_headers=headers)).id != first.id


async def test_idempotency_keys_are_honoured_on_request() -> None:
    async with stage(idempotency=True) as it:
        headers = {"Idempotency-Key": "once"}
        first = await it.respond(extra_headers=headers)
        assert (await it.respond(extra_headers=headers)).id == first.id
        assert (await it.respond(extra_headers={"Idempotency-Key": "twice"})).id != first.id
        with pytest.raises(openai.BadRequestError, match="same parameters") as refused:
            await it.respond("Something else", extra_headers=headers)
        assert refused.value.code == "idempotency_key_reused"
        assert len(await it.server.api.storage.ledger(0, 10)) == 2


async def test_the_ledger_names_every_run_and_response(it: Stage) -> None:
    run = await it.run("First?", metadata={"job": "1"})
    response = await it.respond("Second?", metadata={"job": "2"})
    entries = await it.server.api.storage.ledger(0, 10)
    assert [(e.n, e.id, e.protocol, e.scope, e.metadata, e.question) for e in entries] == [
        (1, run.id, "assistants", run.thread_id, {"job": "1"}, "First?"),
        (2, response.id, "responses", None, {"job": "2"}, "Second?"),
    ]
    assert entries[0].digest != entries[1].digest
