"""The two calls both pipelines make, as OpenAI's own guides show them, for either protocol.

`BASELINE_PROTOCOL` is `assistants` (thread, message, run; https://platform.openai.com/docs/assistants/quickstart) or
`responses` (a background response; https://platform.openai.com/docs/guides/background).
"""

from __future__ import annotations

import os

from openai import OpenAI

PENDING = ("queued", "in_progress")
"""A run with one of these is asked for again; any other status ends it."""


def start(client: OpenAI, question: str) -> tuple[str, str]:
    """Make the run for a question; the thread's id (empty for a response, which needs none) and the run's."""
    if os.environ["BASELINE_PROTOCOL"] == "responses":
        response = client.responses.create(model=os.environ["BASELINE_MODEL"], input=question, background=True)
        return "", response.id
    thread = client.beta.threads.create()
    client.beta.threads.messages.create(thread.id, role="user", content=question)
    run = client.beta.threads.runs.create(thread.id, assistant_id=os.environ["BASELINE_ASSISTANT_ID"])
    return thread.id, run.id


def look(client: OpenAI, thread_id: str, run_id: str) -> tuple[str, str | None]:
    """The run's status, and its text once it has completed."""
    if not thread_id:
        response = client.responses.retrieve(run_id)
        return str(response.status), response.output_text if response.status == "completed" else None
    run = client.beta.threads.runs.retrieve(run_id, thread_id=thread_id)
    if run.status != "completed":
        return run.status, None
    messages = client.beta.threads.messages.list(thread_id, run_id=run_id)
    parts = messages.data[0].content
    return run.status, "".join(part.text.value for part in parts if part.type == "text")
