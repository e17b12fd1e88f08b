"""The stories in which somebody dies at every place (`test_deaths`), and the places there are."""

from __future__ import annotations

from typing import Any

from askq import failpoints
from askq.assistants.model import Assistant, ProtocolName
from askq.jobs.model import MOVES, State
from tests.acceptance.mortal import Story
from worker.steps import MOST_CLAIMS

PROTOCOLS: tuple[ProtocolName, ...] = ("assistants", "responses")
SOON = {"answer": "Answer to: {question}", "duration": 0.15, "poll_after_ms": 100}
USAGE = {"input_tokens": 10, "output_tokens": 5}
CODE = {"input": "plot()", "files": [{"name": "made.csv", "text": "made\n"}]}
SCRIPT: dict[str, Any] = {
    "default": SOON | {"usage": USAGE},
    "rule": [
        {"contains": "cannot be used", **SOON, "answer": {"n": 4}},
        {"contains": "[form]", **SOON, "answer": "four"},
        {"contains": "[slow]", **SOON, "duration": 2.0},
        {"contains": "[long]", "duration": 60, "poll_after_ms": 100, "cancel_takes": 0.1},
        {"contains": "[failed]", "status": "failed", "error": {"code": "server_error"}, **SOON},
        {"contains": "[cut]", "status": "incomplete", "partial": "Half", **SOON},
        {"contains": "[expired]", "status": "expired", **SOON},
        {"contains": "[call]", "calls": [[{"name": "light", "arguments": {"on": True}}]], **SOON},
        {"contains": "[code]", "code": [CODE], **SOON},
        {"contains": "[words]", "answer": "one two three four five six " * 3, "duration": 0.1, "pace": 5.0},
    ],
}


LIGHT = {
    "type": "function",
    "name": "light",
    "description": "Switch the light.",
    "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
}
FORM = {
    "type": "json_schema",
    "name": "number",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
}
HOW = {"light": {"module": "home", "function": "light", "folder": "."}}


def assistant(protocol: ProtocolName, *, timeout_s: float = 30.0, **more: Any) -> Assistant:
    return Assistant(name="mortal", protocol=protocol, model="gpt-test", timeout_s=timeout_s, **more)


def around(*names: str) -> tuple[str, ...]:
    """The places before and after each of these."""
    return tuple(f"{name}.{side}" for name in names for side in ("before", "after"))


def asks(word: str = "", **more: str) -> tuple[dict[str, str], ...]:
    return ({"id": "q1", "question": f"[{word}] What is 2 + 2?", **more},)


PRICED = {"price": {"input": 1.0, "output": 1.0}, "max_output_tokens": 300}
TALK = tuple({"id": f"q{turn}", "question": f"Question {turn}", "thread": "one"} for turn in (1, 2))
STORIES = [
    *(
        story
        for protocol in PROTOCOLS
        for story in (
            Story(name=f"answer-{protocol}", assistant=assistant(protocol, **PRICED), rows=asks(), max_cost_usd=0.01),
            # Its run was made, and its id is not on record.
            Story(name=f"lost-{protocol}", assistant=assistant(protocol), rows=asks(), deaths=("start.after",)),
            # Its intent is on record, and the call was not made.
            Story(name=f"unsent-{protocol}", assistant=assistant(protocol), rows=asks(), deaths=("start.before",)),
            Story(
                name=f"function-{protocol}",
                assistant=assistant(protocol, tools=(LIGHT,), functions=HOW),
                rows=asks("call"),
                runs=2 if protocol == "responses" else 1,
            ),
        )
    ),
    Story(
        name="lost-outputs",
        assistant=assistant("responses", tools=(LIGHT,), functions=HOW),
        rows=asks("call"),
        runs=2,
        deaths=("call.finish.after", "start.before"),
    ),
    Story(
        name="function-once",
        assistant=assistant("assistants", tools=(LIGHT,), functions={"light": HOW["light"] | {"once": True}}),
        rows=asks("call"),
    ),
    *(
        Story(
            name=f"corrected-{protocol}",
            assistant=assistant(protocol, text_format=FORM, on_invalid="retry"),
            rows=asks("form"),
            runs=2,
        )
        for protocol in PROTOCOLS
    ),
    Story(name="conversation", assistant=assistant("responses"), rows=TALK),
    Story(name="cancel", assistant=assistant("responses"), rows=asks("long"), ends=State.CANCELLED, cancels=True),
    Story(name="failed", assistant=assistant("responses"), rows=asks("failed"), ends=State.FAILED),
    Story(name="cut", assistant=assistant("responses"), rows=asks("cut"), ends=State.INCOMPLETE),
    Story(name="expired", assistant=assistant("assistants"), rows=asks("expired"), ends=State.EXPIRED),
    Story(name="watched", assistant=assistant("responses"), rows=asks("words"), streams=True),
    Story(name="resumed", assistant=assistant("responses"), rows=asks("words"), streams=True, deaths=("tell.after",)),
    Story(
        name="code",
        assistant=assistant("responses", tools=({"type": "code_interpreter"},), keep={"threads": "no", "files": "no"}),
        rows=asks("code", file="attached.csv"),
    ),
    Story(
        name="search",
        assistant=assistant("responses", tools=({"type": "file_search"},)),
        rows=asks(file="attached.txt"),
    ),
    Story(name="forgotten", assistant=assistant("assistants"), rows=asks(), forgets=True),
    Story(
        name="forgotten-files",
        assistant=assistant("responses", tools=({"type": "file_search"},)),
        rows=asks(file="attached.txt"),
        forgets=True,
        shows=around("store.delete", "file.delete", "unshare", "bury", "item.drop", "forget.folder"),
    ),
    Story(
        name="chains",
        assistant=assistant("responses"),
        rows=asks("slow"),
        chains=True,
        shows=("timer.tick", *around("reschedule", "hint")),
    ),
    Story(
        name="doubt",
        assistant=assistant("responses", timeout_s=2.0),
        rows=asks(),
        keyless=True,
        # That the call leaves is on record, and it did not: nothing can tell.
        deaths=("start.before",),
        ends=State.UNCERTAIN,
        code="uncertain_create",
        runs=0,
        shows=around("commit.doubt"),
    ),
    Story(
        name="withdrawn",
        assistant=assistant("responses", tools=(LIGHT,), functions=HOW),
        rows=asks("call"),
        keyless=True,
        # The intent to submit outputs is on record, and that its call leaves is not.
        deaths=("call.finish.after", "commit.intend.after"),
        runs=2,
        shows=around("commit.withdraw"),
    ),
    Story(
        name="zombie",
        assistant=assistant("responses"),
        rows=asks("slow"),
        keyless=True,
        stopped="commit.start.before",
        shows=around("witness"),
    ),
    Story(
        name="crashed",
        assistant=assistant("responses", tools=(LIGHT,), functions=HOW),
        rows=asks("call"),
        crashes=True,
        runs=2,
        shows=around("call.again"),
    ),
    Story(
        name="asked-again",
        assistant=assistant("responses"),
        rows=asks("failed"),
        ends=State.FAILED,
        retries=1,
        runs=2,
        shows=around("retry"),
    ),
    Story(
        name="deadly",
        assistant=assistant("assistants"),
        rows=asks(),
        # Whoever is to create its run dies.
        deaths=("start.before",) * MOST_CLAIMS,
        ends=State.FAILED,
        code="poison",
        runs=0,
        shows=("commit.fail.before",),
    ),
]
"""In this order: a place that an earlier story came to is not tried again, but for those where money is at stake."""
MONEY = (
    "start.",
    "start_live.",
    "submit.before",
    "submit.after",
    "find.",
    "commit.intend.",
    "commit.start.",
    "commit.adopt.",
)
"""Places that are tried in every story that comes to them, but for those that are told for places of their own."""

PLACES = {
    *(f"{name}.{side}" for name in (*failpoints.CALLS, *failpoints.PARTS) for side in ("before", "after")),
    *(f"commit.{name}.{side}" for name in MOVES for side in ("before", "after")),
    *failpoints.MOMENTS,
}
NOT_HERE = set(around("commit.wait", "resume_live", "submit_live"))
"""Places to which none of the stories comes for sure: chaos streams, and chaos tools for the first."""
