"""What the API does wrong, by the names the failure model gives it: each kind is one or more rules of the local API.

The probability of a rule is a share of the probability that a profile gives it; without one it is all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rule = dict[str, Any]

# Row ids begin with their kind and stand in every create's metadata. Only creates of plain questions are disturbed:
# of a run that ends without an answer nothing is left where its id was lost and runs cannot be listed, so neither askq
# nor anybody else could count it.
_CREATE: Rule = {"method": "POST", "path": "/(runs|responses)$", "contains": ".plain-"}
_LOOK: Rule = {"method": "GET", "path": "/(runs|responses)/[^/]+$"}
_READ: Rule = {"method": "GET", "path": "."}
_PREPARE: Rule = {"method": "POST", "path": "/(threads|conversations)$"}
_RUNS: Rule = {"method": "POST", "path": "/runs$", "contains": ".plain-"}
_RESPONSES: Rule = {"method": "POST", "path": "/responses$", "contains": ".plain-"}

_SOON: Rule = {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}}
_BARE: Rule = {"kind": "status", "status": 429}
# Nothing tells a create that is refused at random from one that is refused for a limit. One in eight teaches the
# limiter that this account takes one create a second, and every other fault is met as rarely.
_SELDOM: Rule = {"probability": 1 / 4}
_NO_URL = "Invalid URL (POST /v1/gone)"
_QUOTA: Rule = {"kind": "status", "status": 429, "code": "insufficient_quota", "type": "insufficient_quota"}
_ACTIVE = "Thread thread_x already has an active run run_x."
_LOCKED = "Another process is currently operating on this conversation. Please retry in a few seconds."


def at(rule: Rule, share: float, **more: Any) -> Rule:
    """The rule as it is armed by a profile that gives it this probability."""
    return {**rule, **more, "probability": share * rule.get("probability", 1.0)}


def _status(status: int, **more: Any) -> Rule:
    return {"kind": "status", "status": status, **more}


OFTEN: Mapping[str, tuple[Rule, ...]] = {
    "429 with Retry-After": (_CREATE | _SOON | _SELDOM, _LOOK | _SOON),
    "429 without Retry-After": (_CREATE | _BARE | _SELDOM, _LOOK | _BARE),
    "500 before the run": (_CREATE | _status(500), _PREPARE | _status(500), _READ | _status(500)),
    "500 after the run": (_CREATE | {"kind": "status_after", "status": 500},),
    "502": (_CREATE | _status(502), _READ | _status(502)),
    "503": (_CREATE | _status(503), _READ | _status(503)),
    "409": (_CREATE | _status(409),),
    "timeout before the run": (_CREATE | {"kind": "timeout", "seconds": 60},),
    "timeout after the run": (_CREATE | {"kind": "timeout", "seconds": 60, "perform": True},),
    "timeout of a read": (_LOOK | {"kind": "timeout", "seconds": 60},),
    "reset before the run": (_CREATE | {"kind": "drop"}, _PREPARE | {"kind": "drop"}, _READ | {"kind": "drop"}),
    "reset after the run": (_CREATE | {"kind": "drop_after"},),
    "slow body": (_CREATE | {"kind": "slow_body", "seconds": 2}, _READ | {"kind": "slow_body", "seconds": 2}),
    "truncated JSON": (_CREATE | {"kind": "truncated_json"}, _READ | {"kind": "truncated_json"}),
    "cut body": (_CREATE | {"kind": "cut_body"}, _READ | {"kind": "cut_body"}),
    "HTML with status 200": (_CREATE | {"kind": "html_200"}, _READ | {"kind": "html_200"}),
    "unknown status": (_LOOK | {"kind": "patch", "set": {"status": "warming_up"}},),
    "404 on the run": (_LOOK | _status(404, message="No run found with id 'run_x'."),),
    # A proxy that repeats a request does this: the first made the run, the second is told that the thread is taken.
    "active run refused": (
        _RUNS | {"kind": "status_after", "status": 400, "message": _ACTIVE},
        _RESPONSES | {"kind": "status_after", "status": 400, "code": "conversation_locked", "message": _LOCKED},
    ),
}
"""Kinds that may come at any time."""

PAUSING: Mapping[str, tuple[Rule, ...]] = {
    "quota exhausted": (_CREATE | _QUOTA,),
    "401": (_CREATE | _status(401, message="Incorrect API key provided."),),
    "403": (_CREATE | _status(403, message="Your project does not have this scope."),),
    "404 on the endpoint": (_CREATE | _status(404, message=_NO_URL),),
}
"""Kinds that pause the whole account, and the job for half a minute."""

LONG: Mapping[str, tuple[Rule, ...]] = {
    # Slow, so that others are open already: whoever is told makes everybody wait.
    "429 with Retry-After above 120 s": (_LOOK | _status(429, headers={"Retry-After": "121"}, seconds=2),),
}
"""Takes two minutes of everybody: for reads, when there is nothing more to create."""

_UPLOAD: Rule = {"method": "POST", "path": "/files$"}
_CONTENT: Rule = {"method": "GET", "path": "/content$"}
_CONTAINER: Rule = {"method": "GET", "path": "/containers/[^/]+/files$"}
_STORE: Rule = {"method": "POST", "path": "/vector_stores(/[^/]+/file_batches)?$"}
_INDEX: Rule = {"method": "GET", "path": "/vector_stores/[^/]+(/files)?$"}

UPLOADS: Mapping[str, tuple[Rule, ...]] = {
    "500 on an upload": (_UPLOAD | _status(500),),
    "upload refused for now": (_UPLOAD | _SOON,),
    "reply to an upload lost": (_UPLOAD | {"kind": "drop_after"},),
}
"""A file is uploaded once, so that these come seldom."""

DOWNLOADS: Mapping[str, tuple[Rule, ...]] = {
    "500 on a download": (_CONTENT | _status(500),),
    "reset download": (_CONTENT | {"kind": "drop"},),
    "cut download": (_CONTENT | {"kind": "cut_body"},),
    "HTML instead of a file": (_CONTENT | {"kind": "html_200"},),
    "500 on a container": (_CONTAINER | _status(500),),
    "HTML instead of a container": (_CONTAINER | {"kind": "html_200"},),
}

STORES: Mapping[str, tuple[Rule, ...]] = {
    "500 on a store": (_STORE | _status(500),),
    "reply to a store lost": (_STORE | {"kind": "drop_after"},),
    "500 on an index": (_INDEX | _status(500),),
}

_DELETE: Rule = {"method": "DELETE", "path": "."}

DELETIONS: Mapping[str, tuple[Rule, ...]] = {
    "500 on a deletion": (_DELETE | _status(500),),
    "500 after a deletion": (_DELETE | {"kind": "status_after", "status": 500},),
    "deletion refused for now": (_DELETE | _SOON,),
    # A proxy that repeats a request does this: the second is told that nothing is there.
    "404 after a deletion": (_DELETE | {"kind": "status_after", "status": 404, "message": "No such object: x."},),
    "timeout before a deletion": (_DELETE | {"kind": "timeout", "seconds": 60},),
    "timeout after a deletion": (_DELETE | {"kind": "timeout", "seconds": 60, "perform": True},),
    "reply to a deletion lost": (_DELETE | {"kind": "drop_after"},),
    "HTML instead of a deletion": (_DELETE | {"kind": "html_200"},),
}

# Behind so many events the answer is half told, on both protocols.
_MIDWAY: Rule = {"method": "POST", "path": "/(runs|responses|submit_tool_outputs)$", "events": 9}
_RESUMED: Rule = {"method": "GET", "path": "/responses/[^/]+$", "events": 2}
_NAMELESS: Rule = _CREATE | {"events": 0}
_OUTPUTS: Rule = {"method": "POST", "path": "/submit_tool_outputs$"}


def _of_streams(kind: str, **more: Any) -> tuple[Rule, ...]:
    return tuple(rule | {"kind": kind, **more} for rule in (_MIDWAY, _RESUMED))


STREAMS: Mapping[str, tuple[Rule, ...]] = {
    "stream cut": _of_streams("cut_stream"),
    "stream cut within an event": _of_streams("cut_event"),
    "stream that ends without its end": _of_streams("end_stream"),
    "stream that ends with an error": _of_streams("error_event"),
    # A short one goes on after a while, of a long one the run's end is not told.
    "stream stalled": (*_of_streams("stall_stream", seconds=1), *_of_streams("stall_stream", seconds=60)),
    "line that is no event": _of_streams("garbage_line"),
    "event that is no JSON": _of_streams("bad_event"),
    "events that make no sense": _of_streams("odd_events"),
    # Before the first event nobody knows the run's id: these are lost replies to a paid call.
    "stream cut before its run is named": (_NAMELESS | {"kind": "cut_stream"}, _NAMELESS | {"kind": "cut_event"}),
    "stream that ends before its run is named": (_NAMELESS | {"kind": "end_stream"},),
    "stream stalled before its run is named": (_NAMELESS | {"kind": "stall_stream", "seconds": 60},),
    "no JSON before its run is named": (_NAMELESS | {"kind": "bad_event"},),
    "429 instead of a stream": (_CREATE | _SOON | {"probability": 1 / 2}, _OUTPUTS | _SOON),
    "500 instead of a stream": (_CREATE | _status(500), _OUTPUTS | _status(500)),
    "500 instead of a stream, after the run": (
        _CREATE | {"kind": "status_after", "status": 500},
        _OUTPUTS | {"kind": "status_after", "status": 500},
    ),
    "HTML instead of a stream": (_CREATE | {"kind": "html_200"}, _OUTPUTS | {"kind": "html_200"}),
}
"""For a world in which every question is watched: any create, and any outputs on Assistants, ask for a stream."""

ENDS: Mapping[str, str] = {
    "expired": "run expired",
    "incomplete": "run incomplete",
    "cancelled": "run cancelled by somebody else",
    "failed": "run failed",
    "stuck": "run stuck in progress",
    "unknown": "unknown status",
}
"""Kind of question → what its run does wrong by itself."""
