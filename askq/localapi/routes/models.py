"""GET /models, GET /models/{model}.

With `--client-ids` the models belong to `vllm`: that is how clients know a server that takes ids of responses.
"""

from __future__ import annotations

from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import ApiError
from askq.localapi.wire import JsonObject

CREATED = 1_700_000_000
"""Models do not come and go here, so their date is any fixed one."""


def _wire(api: Api, name: str) -> JsonObject:
    owner = "vllm" if api.options.client_ids else "askq-local-api"
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner}


def _list(api: Api, _call: Call) -> Reply:
    names = api.options.models or api.engine.models
    return Reply(body={"object": "list", "data": [_wire(api, name) for name in names]})


def _retrieve(api: Api, call: Call) -> Reply:
    name = call.params["model"]
    check_model(api, name, status=404)
    return Reply(body=_wire(api, name))


def check_model(api: Api, name: str, *, status: int = 400) -> None:
    """Refuse a model that does not exist; raises ApiError."""
    if api.options.models and name not in api.options.models:
        raise ApiError(status, f"The requested model '{name}' does not exist.", param="model", code="model_not_found")


ROUTES = (
    Route("GET", "/models", _list),
    Route("GET", "/models/{model:.+}", _retrieve),
)
