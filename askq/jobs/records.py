"""What Redis holds of jobs, batches and pauses, read back into the words of `model`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from askq.ids import split_job_id
from askq.jobs import codec
from askq.jobs.limits import Wait
from askq.jobs.model import BatchStatus, Budget, Claim, Earlier, Job, Node, Pause, State, Usage
from askq.pauses import concerning, waits_for

_SURROGATES = "surrogatepass"
"""Text comes from files and services, and half of a surrogate pair must not stop a batch of commits."""


def decoded(value: bytes | str) -> str:
    return value.decode(errors=_SURROGATES) if isinstance(value, bytes) else value


def encoded(text: str) -> bytes:
    return text.encode(errors=_SURROGATES)


def record_of(flat: Mapping[bytes, bytes] | Sequence[bytes]) -> dict[str, str]:
    if isinstance(flat, Mapping):
        return {decoded(name): decoded(value) for name, value in flat.items()}
    parts = [decoded(part) for part in flat]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _float(text: str | None) -> float | None:
    return None if text is None else float(text)


def usage_of(values: Mapping[str, str]) -> Usage:
    return Usage(
        input_tokens=int(values.get("in", 0)),
        cached_tokens=int(values.get("cached", 0)),
        output_tokens=int(values.get("out", 0)),
        total_tokens=int(values.get("total", 0)),
        cost_usd=_float(values.get("cost")),
    )


def job_of(id_: str, values: Mapping[str, str], question: bytes, answer: bytes | None, due: float | None) -> Job:
    index = int(values["index"])
    usage = usage_of(values) if "total" in values else None
    return Job(
        id=id_,
        index=index,
        state=State(values["state"]),
        question=codec.load_question(question, row_id=split_job_id(id_)[1], index=index),
        assistant=values["assistant"],
        assistant_digest=values["adigest"],
        protocol=values["protocol"],
        fence=int(values.get("fence", 0)),
        attempts=int(values.get("attempts", 0)),
        runs=int(values.get("runs", 0)),
        polls=int(values.get("polls", 0)),
        remote=values.get("remote"),
        thread_id=values.get("thread"),
        run_id=values.get("run"),
        error_code=values.get("error_code"),
        error_message=values.get("error_message"),
        note=values.get("note"),
        cancel=values.get("cancel"),
        retries=int(values.get("retries", 0)),
        after=values.get("after"),
        next=values.get("next"),
        answer=None if answer is None else codec.load_answer(answer, usage),
        created_at=float(values["created"]),
        started_at=_float(values.get("began") or values.get("started")),
        completed_at=_float(values.get("completed")),
        due_at=due,
    )


def claim_of(now: float, id_: bytes, due: bytes, record: Sequence[bytes], text: bytes) -> Claim:
    values = record_of(record)
    job = decoded(id_)
    question = codec.load_question(text, row_id=split_job_id(job)[1], index=int(values["index"])) if text else None
    return Claim(
        id=job,
        fence=int(values["fence"]),
        state=State(values["state"]),
        assistant_digest=values["adigest"],
        assistant=values["assistant"],
        protocol=values["protocol"],
        question=question,
        first="first" in values,
        claims=int(values["claims"]),
        attempts=int(values.get("attempts", 0)),
        allowance=int(values.get("base", 0)),
        resets=int(values.get("resets", 0)),
        runs=int(values.get("runs", 0)),
        polls=int(values.get("polls", 0)),
        looks=int(values.get("looks", 0)),
        errors=int(values.get("errors", 0)),
        gone=int(values.get("gone", 0)),
        voids=int(values.get("voids", 0)),
        deaths=int(values.get("deaths", 0)),
        thread_id=values.get("thread"),
        run_id=values.get("run"),
        witness=values.get("witness"),
        remote=values.get("remote"),
        cancel=values.get("cancel"),
        fixes=int(values.get("fixes", 0)),
        wrong=values.get("wrong"),
        refers=values.get("refers"),
        spent=codec.load_usage(values["spent"]) if "spent" in values else None,
        cancel_sent="cancel_sent" in values,
        limited_at=_float(values.get("limited")),
        created_at=float(values["created"]),
        intent_at=_float(values.get("intent_at")),
        never_sent="never_sent" in values,
        started_at=_float(values.get("started")),
        deadline=_float(values.get("deadline")),
        estimated=_float(values.get("est")),
        asked_of=values.get("asked_of"),
        seen=_float(values.get("seen")),
        rounds=int(values.get("rounds", 0)),
        closed=int(values.get("closed", 0)),
        earlier=codec.load_usage(values["earlier"]) if "earlier" in values else None,
        acted_run=values.get("acted"),
        brought=values.get("brought"),
        began_at=_float(values.get("began")),
        live="live" in values,
        final=values.get("final"),
        usage=usage_of(values) if "total" in values else None,
        error_code=values.get("error_code"),
        error_message=values.get("error_message"),
        was_due=float(due),
        now=now,
        after=values.get("after"),
        next=values.get("next"),
        joined=values.get("joined"),
        previous=values.get("previous"),
        history=None if "history" not in values else int(values["history"]),
        held=codec.load_held(values.get("held")),
    )


def earlier_of(id_: str, record: Sequence[bytes]) -> Earlier:
    values = record_of(record)
    return Earlier(
        id=id_,
        state=State(values["state"]),
        after=values.get("after"),
        thread_id=values.get("thread"),
        run_id=values.get("run"),
        joined=values.get("joined"),
        previous=values.get("previous"),
        tokens=int(values["total"]) if values.get("total", "0") != "0" else None,
        error_code=values.get("error_code"),
        error_message=values.get("error_message"),
        held=codec.load_held(values.get("held")),
    )


def pause_of(data: bytes) -> Pause:
    return Pause(**_known_of(Pause, data))


def node_of(text: str) -> Node:
    return Node(**_known_of(Node, text))


def _known_of(kind: type[Pause | Node], text: bytes | str) -> dict[str, Any]:
    """What this version knows of a record that a newer one may have written: both work side by side for a while."""
    names = {each.name for each in dataclasses.fields(kind)}
    return {name: value for name, value in json.loads(text).items() if name in names}


def budget_of(found: Sequence[bytes | None], now: float) -> Budget | None:
    limit, spent, reserved, refused = (None if part is None else int(part) for part in found)
    if limit is None:
        return None
    return Budget(
        limit_usd=limit / 1e6,
        spent_usd=(spent or 0) / 1e6,
        reserved_usd=(reserved or 0) / 1e6,
        refused_at=None if refused is None else float(refused),
        waiting_s=0.0 if refused is None else max(0.0, now - refused),
    )


def status_of(
    id_: str,
    record: Mapping[bytes, bytes],
    budget: Budget | None,
    shards: Sequence[Mapping[bytes, bytes]],
    pauses: Sequence[Pause],
    waits: Sequence[Wait],
) -> BatchStatus:
    values = record_of(record)
    counters = [record_of(shard) for shard in shards]
    counts = {state: sum(int(shard.get(state, 0)) for shard in counters) for state in State}
    costs = [float(shard["cost"]) for shard in counters if "cost" in shard]
    usage = Usage(
        input_tokens=sum(int(shard.get("in", 0)) for shard in counters),
        cached_tokens=sum(int(shard.get("cached", 0)) for shard in counters),
        output_tokens=sum(int(shard.get("out", 0)) for shard in counters),
        total_tokens=sum(int(shard.get("total", 0)) for shard in counters),
        cost_usd=sum(costs) if costs else None,
    )
    sealed = "total" in values
    forgotten = sum(int(shard.get("forgotten", 0)) for shard in counters)
    status = BatchStatus(
        id=id_,
        name=values.get("name"),
        assistant=values["assistant"],
        protocol=values["protocol"],
        idempotency_key=values.get("idem"),
        metadata=json.loads(values.get("meta", "{}")),
        table=values.get("table"),
        created_at=float(values["created"]),
        sealed=sealed,
        # Rows being added to a sealed batch make it undone at once, and not only when it is sealed again.
        # Jobs that were forgotten one by one are none of its rows any more.
        total=max(int(values.get("total", 0)) - forgotten, sum(counts.values())),
        counts=counts,
        usage=usage,
        finished_at=max((float(shard["finished"]) for shard in counters if "finished" in shard), default=None),
        budget=budget,
        stale=sum(int(shard.get("stale", 0)) for shard in counters),
        forgetting="forgetting" in values,
    )
    if status.done:
        return status
    return dataclasses.replace(
        status, finished_at=None, paused=concerning(status, pauses), waits=waits_for(status, waits)
    )
