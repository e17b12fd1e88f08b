"""Requests of OpenAI's Batch API: `{"custom_id": …, "method": "POST", "url": …, "body": {…}}`, one per line.

Of a body askq uses the question, the model and the instructions: how a run is made is the assistant's to say. The
rest is carried through to the result and named in a note, so that nobody believes it was used. What would change the
question itself when left out (an image, say) is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from producer.questions.reading import Draft, Fault, Notes, quoted

CHAT_URL = "/v1/chat/completions"
RESPONSES_URL = "/v1/responses"
_USED = {"input", "messages", "model", "instructions"}
_NOT_SENT = "fields of Batch requests that are carried through but not sent (set them in the assistant file): {}"
_TEXT_PARTS = {"input_text", "text", "output_text"}


def recognised(value: Mapping[str, object]) -> bool:
    """Whether an object is such a request."""
    return isinstance(value.get("body"), dict) and ("custom_id" in value or "url" in value)


class _Unusable(Exception):
    """A request that cannot be asked as it is meant."""


def draft(value: Mapping[str, object], *, line: int, size: int, notes: Notes) -> Draft | Fault:
    """The question of a request."""
    body = value["body"]
    if not isinstance(body, dict):
        raise TypeError("only what `recognised` accepts may be passed")
    if "custom_id" not in value:
        return Fault(line, "this request of the Batch API has no custom_id", "custom_id")
    url = value.get("url", RESPONSES_URL)
    if url not in (CHAT_URL, RESPONSES_URL):
        return Fault(line, f"askq answers requests to {RESPONSES_URL} and {CHAT_URL}, not to {quoted(str(url))}", "url")
    try:
        text, said, left_out = _question(body)
    except _Unusable as exc:
        return Fault(line, str(exc), "body")
    own = body.get("instructions")
    if own is not None and not isinstance(own, str):
        return Fault(line, "instructions must be a string", "body")
    instructions = "\n\n".join(part for part in (own, *said) if part)
    if left_out:
        notes.say(
            "of a conversation in a Batch request only the last user message is asked (system and developer messages "
            "become instructions); the earlier messages are carried through in input.body"
        )
    kept = {name: part for name, part in body.items() if name not in _USED or (left_out and name == left_out)}
    for name in kept:
        if name != left_out:
            notes.say(_NOT_SENT, name)
    carried = {name: part for name, part in value.items() if name not in ("custom_id", "body")}
    if kept:
        carried["body"] = kept
    return Draft(
        line=line,
        row_id=value["custom_id"],
        text=text,
        assistant=None,
        model=body.get("model"),
        instructions=instructions or None,
        input=carried,
        size=size,
        text_column="body",
        id_column="custom_id",
    )


def _question(body: Mapping[str, object]) -> tuple[str, list[str], str | None]:
    """The question, what system and developer messages say, and the field that holds more than these."""
    if isinstance(text := body.get("input"), str):
        return text, [], None
    field = "input" if "input" in body else "messages"
    items = body.get(field)
    if not isinstance(items, list) or not items:
        raise _Unusable("the body has neither input (a string or messages) nor messages")
    question: str | None = None
    said: list[str] = []
    spoken = 0
    for item in items:
        if not isinstance(item, dict) or item.get("type", "message") != "message":
            kind = item.get("type") if isinstance(item, dict) else item
            raise _Unusable(f"{field} has an item that is no message: {quoted(str(kind))}")
        role = item.get("role")
        content = _content(item.get("content"), field)
        if role in ("system", "developer"):
            said.append(content)
            continue
        spoken += 1
        if role == "user":
            question = content
        elif item is items[-1]:
            raise _Unusable(f"the last message is by {quoted(str(role))}, not by the user")
    if question is None:
        raise _Unusable(f"{field} has no message by the user")
    return question, said, field if spoken > 1 else None


def _content(content: object, field: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if not isinstance(content, list):
        raise _Unusable(f"the content of a message in {field} must be a string or a list of parts")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            raise _Unusable(f"askq sends text only; a message in {field} has a part of type {quoted(str(kind))}")
        texts.append(text)
    return "\n".join(texts)
