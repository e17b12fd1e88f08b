"""Runs: create (also with a new thread), retrieve, update, list, cancel, tool outputs, steps."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route, Stream
from askq.localapi.errors import active_run, invalid, not_found
from askq.localapi.routes.assistants import find_assistant
from askq.localapi.routes.formats import checked_response_format
from askq.localapi.routes.messages import add_message, checked_message
from askq.localapi.routes.models import check_model
from askq.localapi.routes.threads import create_thread, find_thread
from askq.localapi.routes.tools import checked_choice, checked_tools
from askq.localapi.scribes.assistants import pending_calls, run_wire
from askq.localapi.scribes.made import step_wire
from askq.localapi.wire import JsonObject, new_id, page
from askq.localapi.work import Work

TOOLS = 20
TOOL_OUTPUTS = 128
TOOL_OUTPUT_CHARS = 512 * 1024
ADDITIONAL_MESSAGES = 100

_SHARED = frozenset(
    {
        "assistant_id",
        "model",
        "instructions",
        "tools",
        "metadata",
        "temperature",
        "top_p",
        "response_format",
        "tool_choice",
        "parallel_tool_calls",
        "max_prompt_tokens",
        "max_completion_tokens",
        "truncation_strategy",
        "stream",
    }
)
RUN_PARAMETERS = _SHARED | {"additional_instructions", "additional_messages", "reasoning_effort"}
THREAD_AND_RUN_PARAMETERS = _SHARED | {"thread", "tool_resources"}


def _settings(api: Api, body: JsonObject) -> JsonObject:
    """The run's own fields: those of the request, else those of its assistant; raises ApiError."""
    fields.flag(body, "stream", default=False)  # refused before anything is made
    assistant = find_assistant(api, fields.required_text(body, "assistant_id"))
    model = fields.text(body, "model") or assistant["model"]
    check_model(api, model)
    instructions = fields.text(body, "instructions")
    if instructions is None:
        instructions = assistant["instructions"] or ""
    more = fields.text(body, "additional_instructions")
    if more:
        instructions = f"{instructions}\n\n{more}" if instructions else more
    temperature = fields.number(body, "temperature", low=0, high=2)
    top_p = fields.number(body, "top_p", low=0, high=1)
    tools = checked_tools(body, "assistants", most=TOOLS) if body.get("tools") is not None else assistant["tools"]
    return {
        "assistant_id": assistant["id"],
        "model": model,
        "instructions": instructions,
        "tools": tools,
        "metadata": fields.metadata(body),
        "temperature": assistant["temperature"] if temperature is None else temperature,
        "top_p": assistant["top_p"] if top_p is None else top_p,
        "max_prompt_tokens": fields.whole(body, "max_prompt_tokens", least=256),
        "max_completion_tokens": fields.whole(body, "max_completion_tokens", least=256),
        "truncation_strategy": fields.obj(body, "truncation_strategy") or {"type": "auto", "last_messages": None},
        "response_format": checked_response_format(body) or assistant["response_format"],
        "tool_choice": checked_choice(body, tools),
        "parallel_tool_calls": fields.flag(body, "parallel_tool_calls", default=True),
        "reasoning_effort": fields.text(body, "reasoning_effort") or assistant["reasoning_effort"],
    }


def _begin(api: Api, thread: JsonObject, settings: JsonObject, call: Call, *, new: bool = False) -> Reply:
    streamed = fields.flag(call.body, "stream", default=False)
    now = api.now()
    work = Work(
        id=new_id("run"),
        protocol="assistants",
        scope=thread["id"],
        number=api.storage.next_ledger_number(),
        created=now,
        deadline=now + api.options.run_lifetime_s,
        body=settings,
        started=now,
        streamed=streamed,
    )
    api.works.begin(work)
    api.stats.created["assistants"] += 1
    if streamed:
        run = {**run_wire(work, now), "status": "queued"}
        opening = (("thread.run.created", run), ("thread.run.queued", run))
        created = (("thread.created", thread),) if new else ()
        return Reply(stream=Stream(work=work, first=(*created, *opening), include=call.include), work=work)
    return Reply(body=run_wire(work, now), work=work)


def _create(api: Api, call: Call) -> Reply:
    thread = find_thread(api, call.params["thread_id"])
    thread_id = thread["id"]
    fields.only(call.body, RUN_PARAMETERS)
    settings = _settings(api, call.body)
    messages = [
        checked_message(api, message)
        for message in fields.objects(call.body, "additional_messages", most=ADDITIONAL_MESSAGES)
    ]
    active = api.works.active_in(thread_id)
    if active is not None:
        raise active_run(thread_id, active.id)
    for message in messages:
        add_message(api, thread_id, message)
    return _begin(api, thread, settings, call)


def _create_with_thread(api: Api, call: Call) -> Reply:
    fields.only(call.body, THREAD_AND_RUN_PARAMETERS)
    settings = _settings(api, call.body)
    thread = dict(fields.obj(call.body, "thread") or {})
    resources = fields.obj(call.body, "tool_resources")
    if resources is not None:
        thread["tool_resources"] = resources
    return _begin(api, create_thread(api, thread), settings, call, new=True)


def _run(api: Api, call: Call) -> Work:
    thread_id, run_id = find_thread(api, call.params["thread_id"])["id"], call.params["run_id"]
    work = api.works.get("assistants", run_id)
    if work is None or work.scope != thread_id:
        raise not_found(f"No run found with id '{run_id}'.")
    return work


def _retrieve(api: Api, call: Call) -> Reply:
    work = _run(api, call)
    api.works.poll(work)
    hint = work.poll_after_ms
    headers = {} if hint is None else {"openai-poll-after-ms": str(hint)}
    return Reply(body=run_wire(work, api.now()), headers=headers)


def _update(api: Api, call: Call) -> Reply:
    work = _run(api, call)
    fields.only(call.body, frozenset({"metadata"}))
    work.body["metadata"] = fields.merged_metadata(work.body["metadata"], call.body)
    api.works.save(work)
    return Reply(body=run_wire(work, api.now()))


def _list(api: Api, call: Call) -> Reply:
    thread_id = find_thread(api, call.params["thread_id"])["id"]
    asked = fields.page_query(call.query)
    now = api.now()
    runs = [run_wire(work, now) for work in api.works.in_scope(thread_id)]
    data, has_more = fields.cut_page(runs, asked)
    return Reply(body=page(data, has_more=has_more))


def _cancel(api: Api, call: Call) -> Reply:
    work = _run(api, call)
    if work.ended is not None:
        raise invalid(f"Cannot cancel run with status '{work.status(api.now())}'.")
    api.works.cancel(work)
    return Reply(body=run_wire(work, api.now()))


def _submit_tool_outputs(api: Api, call: Call) -> Reply:
    work = _run(api, call)
    fields.only(call.body, frozenset({"tool_outputs", "stream"}))
    streamed = fields.flag(call.body, "stream", default=False)
    outputs: dict[str, str] = {}
    for output in fields.objects(call.body, "tool_outputs", most=TOOL_OUTPUTS):
        call_id = fields.required_text(output, "tool_call_id")
        if call_id in outputs:
            raise invalid(f"Duplicate tool output for call_id {call_id}.", param="tool_outputs")
        outputs[call_id] = fields.text(output, "output", most=TOOL_OUTPUT_CHARS) or ""
    if not work.waiting:
        raise invalid(f'Runs in status "{work.status(api.now())}" do not accept tool outputs.')
    pending = pending_calls(work)
    expected = [pending_call["id"] for pending_call in pending]
    if sorted(expected) != sorted(outputs):
        raise invalid(f"Expected tool outputs for call_ids {expected}, got {list(outputs)}", param="tool_outputs")
    for pending_call in pending:
        pending_call["function"]["output"] = outputs[pending_call["id"]]
    step = work.made[-1]
    step["status"], step["completed_at"] = "completed", int(api.now())
    work.streamed = streamed
    api.works.go_on(work)
    if streamed:
        run = {**run_wire(work, api.now()), "status": "queued"}
        first = (("thread.run.step.completed", step), ("thread.run.queued", run))
        return Reply(stream=Stream(work=work, first=first, before=len(work.made), include=call.include))
    return Reply(body=run_wire(work, api.now()))


def _list_steps(api: Api, call: Call) -> Reply:
    work = _run(api, call)
    data, has_more = fields.cut_page(work.made, fields.page_query(call.query))
    return Reply(body=page([step_wire(step, call.include) for step in data], has_more=has_more))


def _retrieve_step(api: Api, call: Call) -> Reply:
    work, step_id = _run(api, call), call.params["step_id"]
    for step in work.made:
        if step["id"] == step_id:
            return Reply(body=step_wire(step, call.include))
    raise not_found(f"No run step found with id '{step_id}'.")


ROUTES = (
    Route("POST", "/threads/runs", _create_with_thread),
    Route("POST", "/threads/{thread_id}/runs", _create),
    Route("GET", "/threads/{thread_id}/runs", _list),
    Route("GET", "/threads/{thread_id}/runs/{run_id}", _retrieve),
    Route("POST", "/threads/{thread_id}/runs/{run_id}", _update),
    Route("POST", "/threads/{thread_id}/runs/{run_id}/cancel", _cancel),
    Route("POST", "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs", _submit_tool_outputs),
    Route("GET", "/threads/{thread_id}/runs/{run_id}/steps", _list_steps),
    Route("GET", "/threads/{thread_id}/runs/{run_id}/steps/{step_id}", _retrieve_step),
)
