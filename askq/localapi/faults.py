"""Faults on demand: which requests go wrong, and how.

`POST /_askq/faults` takes one rule, a list of rules, or `{"faults": [rule, ...]}`; the file of the `script` engine
takes the same rules under `fault`. For example, the third create of a run is carried out but answered with 500:

    {"method": "POST", "path": "/runs$", "skip": 2, "times": 1, "kind": "status_after", "status": 500}

Which requests (all that are given must hold; a rule without any is about every request):

    method       HTTP method
    path         regular expression, searched in the path (which begins with /v1; the query is no part of it)
    contains     text that the request's body must contain, as it is in the JSON

Which of these:

    skip         let so many matching requests pass first (0)
    times        go off so often, then never again (for ever)
    probability  go off for this share of the matching requests (1), drawn from a generator of its own
    seed         seed of that generator (0): equal seeds give equal sequences

What happens: `kind`, and `perform` if the request is to be carried out or not against the kind's habit:

    kind            carried out   what the client gets
    status          no            an error in OpenAI's envelope: status (500), type, code, message, headers; after
                                  `seconds` (0)
    status_after    yes           the same: the double-pay trap
    drop            no            the connection breaks without a reply
    drop_after      yes           the same
    delay           yes           the right reply; the request is carried out only after `seconds` (1)
    slow_body       yes           the right reply, its body spread over `seconds` (1)
    truncated_json  yes           status and headers of the right reply, and half of its JSON, properly ended
    cut_body        yes           half of the right body, then the connection breaks
    html_200        no            status 200 and a page of HTML
    timeout         no            nothing until the client leaves or `seconds` (3600) are over, then a broken connection
    patch           yes           the right reply with the fields of `set` overwritten and those of `remove` missing

Of streams only (requests with `stream` true); `events` (3) says after how many events of this connection:

    cut_stream     yes           then the connection breaks
    cut_event      yes           then half of an event comes, and the connection breaks
    end_stream     yes           then the stream ends in good order, without the events that are missing
    error_event    yes           then an event comes that says `code` and `message`, and the stream ends
    stall_stream   yes           then nothing comes for `seconds` (1), and then the rest
    garbage_line   yes           then a line comes that is no part of an event, and then the rest
    bad_event      yes           then an event comes whose data is half of its JSON, and then the rest
    odd_events     yes           then events come that are sound JSON and make no sense, and then the rest

`slow_body`, `truncated_json`, `cut_body` and `patch` leave streams alone. A run goes on whatever happens to its stream.

The first rule that goes off is applied; rules behind it do not count that request. `/_askq/...` is never disturbed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from askq.localapi.errors import ApiError, invalid
from askq.localapi.fields import json_name
from askq.localapi.wire import JsonObject

_PERFORMS = {
    "status": False,
    "status_after": True,
    "drop": False,
    "drop_after": True,
    "delay": True,
    "slow_body": True,
    "truncated_json": True,
    "cut_body": True,
    "html_200": False,
    "timeout": False,
    "patch": True,
    "cut_stream": True,
    "cut_event": True,
    "end_stream": True,
    "error_event": True,
    "stall_stream": True,
    "garbage_line": True,
    "bad_event": True,
    "odd_events": True,
}
_OF_STREAMS = frozenset(
    {
        "cut_stream",
        "cut_event",
        "end_stream",
        "error_event",
        "stall_stream",
        "garbage_line",
        "bad_event",
        "odd_events",
    }
)
KINDS = tuple(_PERFORMS)
_SECONDS = {"timeout": 3600.0}

_TYPES: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "path": (str,),
    "contains": (str,),
    "skip": (int,),
    "times": (int,),
    "probability": (int, float),
    "seed": (int,),
    "kind": (str,),
    "perform": (bool,),
    "status": (int,),
    "type": (str,),
    "code": (str,),
    "message": (str,),
    "headers": (dict,),
    "seconds": (int, float),
    "events": (int,),
    "set": (dict,),
    "remove": (list,),
}

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule; see the module's description for the fields."""

    id: str
    given: JsonObject
    """The rule as it was given."""
    kind: str
    performs: bool
    path: re.Pattern[str] | None
    draws: random.Random
    seconds: float
    seen: int = 0
    """Requests that matched."""
    hits: int = 0
    """Requests it was applied to."""

    def matches(self, method: str, path: str, body: str, *, streams: bool) -> bool:
        """Whether the rule is about this request."""
        given = self.given
        return (
            (streams or self.kind not in _OF_STREAMS)
            and ("method" not in given or given["method"].upper() == method)
            and (self.path is None or self.path.search(path) is not None)
            and ("contains" not in given or given["contains"] in body)
        )

    def goes_off(self) -> bool:
        """Count a matching request, and decide."""
        given = self.given
        if "times" in given and self.hits >= given["times"]:
            return False
        self.seen += 1
        if self.seen <= given.get("skip", 0) or self.draws.random() >= given.get("probability", 1):
            return False
        self.hits += 1
        return True

    def error(self) -> ApiError:
        """The error of the kinds `status` and `status_after`."""
        status = self.given.get("status", 500)
        kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        return ApiError(
            status,
            self.given.get("message", f"The local API was told to answer {status} (fault {self.id})."),
            code=self.given.get("code"),
            kind=self.given.get("type", kind),
            headers=self.given.get("headers"),
        )

    def to_wire(self) -> JsonObject:
        """The rule with its id and its counts."""
        return {"id": self.id, **self.given, "seen": self.seen, "hits": self.hits}


@dataclass(slots=True)
class Faults:
    """The rules in force, in the order they were given."""

    rules: list[Fault] = field(default_factory=list)
    _made: int = 0

    def add(self, given: Mapping[str, object]) -> Fault:
        """Put a rule in force; raises ApiError (400) naming what is wrong with it."""
        rule = checked_rule(given)
        self._made += 1
        kind: str = rule["kind"]
        fault = Fault(
            id=f"fault_{self._made}",
            given=rule,
            kind=kind,
            performs=rule.get("perform", _PERFORMS[kind]),
            path=re.compile(rule["path"]) if "path" in rule else None,
            draws=random.Random(rule.get("seed", 0)),  # noqa: S311 (repeatable on purpose)
            seconds=float(rule.get("seconds", _SECONDS.get(kind, 1.0))),
        )
        self.rules.append(fault)
        return fault

    def add_all(self, given: Sequence[Mapping[str, object]]) -> list[Fault]:
        """Put several rules in force, or none when one of them is wrong; raises ApiError (400)."""
        for rule in given:
            checked_rule(rule)
        return [self.add(rule) for rule in given]

    def remove(self, fault_id: str) -> bool:
        """Take a rule out of force; whether there was one."""
        before = len(self.rules)
        self.rules = [rule for rule in self.rules if rule.id != fault_id]
        return len(self.rules) < before

    def clear(self) -> int:
        """Take all rules out of force; how many there were."""
        count = len(self.rules)
        self.rules.clear()
        return count

    def pick(self, method: str, path: str, body: bytes, *, streams: bool = False) -> Fault | None:
        """The fault this request shall suffer."""
        if not self.rules:
            return None
        text = body.decode("utf-8", "replace")
        matching = (rule for rule in self.rules if rule.matches(method, path, text, streams=streams))
        return next((rule for rule in matching if rule.goes_off()), None)


def checked_rule(given: Mapping[str, object]) -> JsonObject:
    """A copy of the rule, if it is right; raises ApiError (400)."""
    for name, value in given.items():
        if name not in _TYPES:
            raise invalid(f"Unknown field of a fault: '{name}'. There are: {', '.join(_TYPES)}.", param=name)
        types = _TYPES[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise invalid(f"Wrong type for '{name}' of a fault: {json_name(value)}.", param=name)
    rule: JsonObject = dict(given)
    if rule.get("kind") not in _PERFORMS:
        raise invalid(f"A fault needs a 'kind', one of: {', '.join(KINDS)}.", param="kind")
    try:
        re.compile(rule.get("path", ""))
    except re.error as exc:
        raise invalid(f"'path' of a fault is no regular expression: {exc}.", param="path") from exc
    if not 400 <= rule.get("status", 500) <= 599:
        raise invalid("'status' of a fault must be from 400 to 599.", param="status")
    if not 0 <= rule.get("probability", 1) <= 1:
        raise invalid("'probability' of a fault must be from 0 to 1.", param="probability")
    for name in ("skip", "times", "seconds", "events"):
        if rule.get(name, 0) < 0:
            raise invalid(f"'{name}' of a fault must not be negative.", param=name)
    if not all(isinstance(value, str) for value in rule.get("headers", {}).values()):
        raise invalid("'headers' of a fault must have strings for values.", param="headers")
    return rule
