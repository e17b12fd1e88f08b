"""Function calls as the real OpenAI SDK sees them: rounds, outputs, refusals, and what the ledger keeps of them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.beta.threads import Run
from openai.types.responses import Response

from tests.contract.localapi_sdk_stage import Stage, ids, stage

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Adds.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}
NESTED: Any = {"type": "function", "function": ADD}
FLAT: Any = {"type": "function", **ADD}

TWO_ROUNDS: dict[str, Any] = {
    "regex": r"(\d+) and (\d+)",
    "calls": [
        [{"name": "add", "arguments": '{"a": {1}, "b": {2}}'}, {"name": "unknown", "arguments": "{broken"}],
        [{"name": "add", "arguments": {"a": 1, "b": 2}}],
    ],
    "answer": "{outputs}",
}


def calls_of(response: Response) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def outputs_for(response: Response, *outputs: str) -> Any:
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": output}
        for call, output in zip(calls_of(response), outputs, strict=True)
    ]


async def submit(it: Stage, run: Run, *outputs: str) -> Run:
    assert run.required_action is not None
    calls = run.required_action.submit_tool_outputs.tool_calls
    given: Any = [{"tool_call_id": call.id, "output": output} for call, output in zip(calls, outputs, strict=True)]
    made: Run = await it.beta.threads.runs.submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=given)
    return made


async def ledger(it: Stage) -> list[Any]:
    return [entry.to_wire() for entry in await it.server.api.storage.ledger(0, 100)]


async def test_a_run_is_one_paid_create_and_its_outputs_are_kept_by_round_and_call() -> None:
    async with stage(TWO_ROUNDS) as it:
        run = await it.after(await it.run("5 and 6", metadata={"job": "j1"}, tools=[NESTED]))
        assert run.required_action is not None
        first = run.required_action.submit_tool_outputs.tool_calls
        assert [(call.function.name, call.function.arguments) for call in first] == [
            ("add", '{"a": 5, "b": 6}'),
            ("unknown", "{broken"),
        ]
        run = await it.after(await submit(it, run, "11", "no such function"))
        assert run.required_action is not None
        [second] = run.required_action.submit_tool_outputs.tool_calls
        run = await it.after(await submit(it, run, "3"))
        assert run.status == "completed"
        assert await it.texts(run) == ["11, no such function, 3"]
        [entry] = await ledger(it)
        assert entry["metadata"] == {"job": "j1"}
        assert [(each["round"], each["call_id"], each["name"], each["output"]) for each in entry["tool_outputs"]] == [
            (1, first[0].id, "add", "11"),
            (1, first[1].id, "unknown", "no such function"),
            (2, second.id, "add", "3"),
        ]
        assert entry["tool_outputs"][0]["arguments"] == '{"a": 5, "b": 6}'


async def test_each_round_of_responses_is_a_paid_create_with_the_outputs_it_brought() -> None:
    async with stage(TWO_ROUNDS) as it:
        conversation = (await it.client.conversations.create()).id
        first = await it.response_after(
            await it.respond("5 and 6", conversation=conversation, tools=[FLAT], metadata={"job": "j1"})
        )
        calls = calls_of(first)
        second = await it.response_after(
            await it.respond(outputs_for(first, "11", "none"), conversation=conversation, tools=[FLAT])
        )
        third = await it.response_after(await it.respond(outputs_for(second, "3"), conversation=conversation))
        assert third.output_text == "11, none, 3"
        entries = await ledger(it)
        assert [entry["id"] for entry in entries] == [first.id, second.id, third.id]
        assert [entry["round"] for entry in entries] == [0, 1, 2]
        kept = [[(each["round"], each["call_id"], each["output"]) for each in e["tool_outputs"]] for e in entries]
        assert kept == [
            [],
            [(1, calls[0].call_id, "11"), (1, calls[1].call_id, "none")],
            [(2, calls_of(second)[0].call_id, "3")],
        ]


@pytest.mark.parametrize("by", ["conversation", "previous_response_id"])
async def test_an_output_is_missing_or_answers_no_call(by: str) -> None:
    async with stage({"calls": [[{"name": "f"}, {"name": "g"}]]}) as it:
        conversation = (await it.client.conversations.create()).id
        link: dict[str, Any] = {"conversation": conversation} if by == "conversation" else {}
        first = await it.response_after(await it.respond("Go", **link))
        link = link or {"previous_response_id": first.id}
        one, two = calls_of(first)
        whole = outputs_for(first, "1", "2")
        with pytest.raises(openai.BadRequestError, match=f"No tool output found for function call {two.call_id}"):
            await it.respond(whole[:1], **link)
        with pytest.raises(openai.BadRequestError, match=f"No tool output found for function call {one.call_id}"):
            await it.respond("Never mind", **link)
        stray = {"type": "function_call_output", "call_id": "call_stray", "output": "x"}
        with pytest.raises(openai.BadRequestError, match=r"No tool call found .* call_id call_stray"):
            await it.respond([*whole, stray], **link)
        assert len(await ledger(it)) == 1, "a refused create is not paid"
        assert (await it.response_after(await it.respond(whole, **link))).output_text == "Answer to: Go"


async def test_outputs_are_refused_unless_they_are_exactly_those_asked_for() -> None:
    async with stage({"calls": [[{"name": "f"}, {"name": "g"}]]}) as it:
        run = await it.after(await it.run())
        assert run.required_action is not None
        one, two = ids(run.required_action.submit_tool_outputs.tool_calls)
        for given, words in (
            ([one], "Expected tool outputs for call_ids"),
            ([], "Expected tool outputs for call_ids"),
            ([one, two, "call_stray"], "Expected tool outputs for call_ids"),
            ([one, one, two], f"Duplicate tool output for call_id {one}"),
        ):
            outputs: Any = [{"tool_call_id": call_id, "output": "x"} for call_id in given]
            with pytest.raises(openai.BadRequestError, match=words):
                await it.beta.threads.runs.submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=outputs)
        assert (await it.poll(run)).status == "requires_action"
        queued = await submit(it, run, "1", "2")
        assert queued.status == "queued"
        with pytest.raises(openai.BadRequestError, match='Runs in status "queued" do not accept tool outputs'):
            await submit(it, run, "1", "2")
        await it.after(run)
        with pytest.raises(openai.BadRequestError, match='Runs in status "completed" do not accept tool outputs'):
            await submit(it, run, "1", "2")
        [entry] = await ledger(it)
        assert len(entry["tool_outputs"]) == 2


async def test_a_run_expires_that_waits_ten_minutes_for_outputs() -> None:
    async with stage({"calls": [[{"name": "f"}]]}) as it:
        run = await it.after(await it.run())
        assert (await it.after(run, 580)).status == "requires_action"
        assert (await it.after(run, 20)).status == "expired"
        with pytest.raises(openai.BadRequestError, match='Runs in status "expired" do not accept tool outputs'):
            await submit(it, run, "late")


async def test_calls_come_one_at_a_time_without_parallel_calls_and_not_at_all_without_choice() -> None:
    async with stage({"calls": [[{"name": "f"}, {"name": "g"}]], "answer": "{outputs}"}) as it:
        run = await it.after(await it.run(parallel_tool_calls=False))
        run = await it.after(await submit(it, run, "1"))
        run = await it.after(await submit(it, run, "2"))
        assert await it.texts(run) == ["1, 2"]
        response = await it.response_after(await it.respond(parallel_tool_calls=False))
        assert [call.name for call in calls_of(response)] == ["f"]
        response = await it.response_after(await it.respond(tool_choice="none"))
        assert (calls_of(response), response.tool_choice) == ([], "none")
        run = await it.after(await it.run(tool_choice="none"))
        assert (run.status, run.tool_choice) == ("completed", "none")


def schema(**changes: Any) -> Any:
    return {**ADD, "parameters": {**ADD["parameters"], **changes}}


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        ([{**ADD, "name": "not a name"}], None, "does not match pattern"),
        ([{**ADD, "name": "n" * 65}], None, "maximum length 64"),
        ([{"description": "nameless"}], None, r"Missing required parameter: 'tools\[0\].*name'"),
        ([schema(type="integers")], None, "Invalid schema for function 'add'"),
        (
            [schema(additionalProperties=True)],
            None,
            "'additionalProperties' is required to be supplied and to be false",
        ),
        ([schema(required=["a"])], None, "Missing 'b'"),
        ([{**schema(required=["a"]), "strict": False}], "sub", "Tool choice 'sub' not found in 'tools' parameter"),
        ([ADD], "sometimes", "Supported values are: 'none', 'auto', and 'required'"),
    ],
)
async def test_wrong_tools_are_refused_alike_on_both_protocols(tools: Any, choice: Any, words: str) -> None:
    async with stage() as it:
        flat = [{"type": "function", **tool} for tool in tools]
        nested = [{"type": "function", "function": tool} for tool in tools]
        chosen: dict[str, Any] = {}
        nested_choice: dict[str, Any] = {}
        if choice == "sub":
            chosen = {"tool_choice": {"type": "function", "name": "sub"}}
            nested_choice = {"tool_choice": {"type": "function", "function": {"name": "sub"}}}
        elif choice is not None:
            chosen = nested_choice = {"tool_choice": choice}
        with pytest.raises(openai.BadRequestError, match=words):
            await it.respond(tools=flat, **chosen)
        with pytest.raises(openai.BadRequestError, match=words):
            await it.run(tools=nested, **nested_choice)
        if choice is None:
            with pytest.raises(openai.BadRequestError, match=words):
                await it.assistant(tools=nested)
        assert await ledger(it) == []


async def test_conversations_remember_and_do_not_mix() -> None:
    async with stage(default={"answer": "{earlier} > {question}"}) as it:
        threads = [await it.thread(f"I am number {n}") for n in range(3)]
        assistant = await it.assistant()
        for thread in threads:
            run = await it.after(await it.beta.threads.runs.create(thread, assistant_id=assistant))
            await it.beta.threads.messages.create(thread, role="user", content="Who am I?")
            run = await it.after(await it.beta.threads.runs.create(thread, assistant_id=assistant))
            [text] = await it.texts(run)
            assert text == f"I am number {threads.index(thread)} > Who am I?"
        conversation = (await it.client.conversations.create()).id
        await it.response_after(await it.respond("I am Kim", conversation=conversation))
        second = await it.response_after(await it.respond("Who am I?", conversation=conversation))
        assert second.output_text == "I am Kim > Who am I?"


async def test_rules_by_number_hold_for_all_rounds_of_a_question() -> None:
    async with stage({"every": 2, "calls": [[{"name": "f"}]], "answer": "run {n} got {output}"}) as it:
        await it.respond("one")
        first = await it.response_after(await it.respond("two"))
        second = await it.response_after(await it.respond(outputs_for(first, "x"), previous_response_id=first.id))
        assert second.output_text == "run 2 got x"


CODED: dict[str, Any] = {
    "calls": [[{"name": "f"}]],
    "calls_code": [[{"input": "1", "files": ["a.csv"], "images": ["a.png"]}]],
    "code": [{"input": "2", "files": ["b.csv"]}],
    "answer": "see sandbox:/mnt/data/a.csv",
}


async def test_files_that_a_run_made_before_it_called_come_with_its_message(tmp_path: Any) -> None:
    async with stage(CODED, data=str(tmp_path)) as it:
        run = await it.after(await it.run())
        steps = (await it.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc")).data
        kinds = [step.step_details.tool_calls[0].type for step in steps]
        assert (kinds, [step.status for step in steps]) == (
            ["code_interpreter", "function"],
            ["completed", "in_progress"],
        )
    async with stage(CODED, data=str(tmp_path)) as it:
        done = await it.after(await submit(it, await it.poll(run), "x"))
        [message] = (await it.beta.threads.messages.list(done.thread_id, run_id=done.id)).data
        picture, text = message.content
        assert picture.image_file.file_id
        assert len(message.attachments) == 2
        assert text.text.annotations[0].file_path.file_id == message.attachments[0].file_id


async def test_an_older_data_folder_gets_the_table_of_outputs(tmp_path: Any) -> None:
    import sqlite3

    async with stage({"calls": [[{"name": "f"}]]}, data=str(tmp_path)) as it:
        run = await it.after(await it.run())
    with sqlite3.connect(tmp_path / "localapi.sqlite3") as connection:
        connection.execute("DROP TABLE given_outputs")
    connection.close()
    async with stage({"calls": [[{"name": "f"}]]}, data=str(tmp_path)) as it:
        await submit(it, await it.poll(run), json.dumps({"ok": True}))
        [entry] = await ledger(it)
        assert [each["output"] for each in entry["tool_outputs"]] == ['{"ok": true}']
