"""Refusals, in OpenAI's error envelope and, as far as they are known, in OpenAI's words."""

from __future__ import annotations

from collections.abc import Mapping

from askq.localapi.wire import JsonObject


class LocalApiError(Exception):
    """The local API cannot be started as asked. The message says what to change."""


class ApiError(Exception):
    """A request that is answered with an error status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})

    def envelope(self) -> JsonObject:
        """The reply's body."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code},
        }


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, message, param=param, code=code)


def not_found(message: str) -> ApiError:
    """404: there is no such object."""
    return ApiError(404, message)


def unsupported(what: str, *, param: str | None) -> ApiError:
    """400: OpenAI can do this, the local API cannot."""
    return ApiError(400, f"The local API does not support {what}.", param=param, code="unsupported_parameter")


def active_run(thread_id: str, run_id: str) -> ApiError:
    """400: one active run per thread."""
    return invalid(f"Thread {thread_id} already has an active run {run_id}.")


def messages_closed(thread_id: str, run_id: str) -> ApiError:
    """400: a thread takes no messages while a run is active in it."""
    return invalid(f"Can't add messages to {thread_id} while a run {run_id} is active.")


def conversation_locked() -> ApiError:
    """400: a response is in flight in this conversation."""
    return invalid(
        "Another process is currently operating on this conversation. Please retry in a few seconds.",
        param="conversation",
        code="conversation_locked",
    )


def missing_key() -> ApiError:
    """401: no bearer key came with the request."""
    return ApiError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using "
        "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def wrong_key(key: str) -> ApiError:
    """401: the key is not the one this server was started with. Only its ends are repeated."""
    shown = f"{key[:4]}{'*' * 8}{key[-4:]}" if len(key) > 12 else "*" * len(key)
    return ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def missing_beta_header() -> ApiError:
    """400: the Assistants API is behind a header."""
    return ApiError(
        400,
        "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the "
        "header 'OpenAI-Beta: assistants=v2'.",
        code="invalid_beta",
    )


def server_error() -> ApiError:
    """500: a fault of the local API itself; its log has the traceback."""
    return ApiError(
        500,
        "The server had an error while processing your request. Sorry about that! (The local API's log says more.)",
        kind="server_error",
    )
