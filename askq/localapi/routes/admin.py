"""What OpenAI does not have: health, ledger, statistics, faults, limits and expiry on demand, below `/_askq`."""

from __future__ import annotations

import json

from aiohttp import web
from aiohttp.typedefs import Handler as WebHandler

from askq.localapi.api import Api
from askq.localapi.errors import invalid, not_found
from askq.localapi.files.containers import no_such_container
from askq.localapi.gate import check_key

LEDGER_LIMIT = 1000
LEDGER_MOST = 10_000


def add_routes(app: web.Application, api: Api) -> None:
    """Put the endpoints into the application. With `--key`, all but health ask for it."""

    def guarded(handler: WebHandler) -> WebHandler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if api.options.key is not None:
                check_key(api, request)
            return await handler(request)

        return checked

    async def health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "engine": api.engine.name})

    async def ledger(request: web.Request) -> web.Response:
        after, limit = _number(request, "after", 0), _number(request, "limit", LEDGER_LIMIT)
        entries = await api.storage.ledger(after, min(limit, LEDGER_MOST))
        last = entries[-1].n if entries else after
        return web.json_response(
            {
                "object": "list",
                "data": [entry.to_wire() for entry in entries],
                "last": last,
                "has_more": last < api.storage.ledger_length,
            }
        )

    async def stats(_request: web.Request) -> web.Response:
        return web.json_response(
            {
                "engine": api.engine.name,
                "requests": dict(sorted(api.stats.requests.items())),
                "statuses": dict(sorted(api.stats.statuses.items())),
                "created": {protocol: api.stats.created[protocol] for protocol in ("assistants", "responses")},
                "ledger": api.storage.ledger_length,
                "in_flight": api.works.in_flight(),
                "objects": {**api.store.counts(), **api.works.counts()},
                "faults": dict(sorted(api.stats.faults.items())),
                "limits": api.limits.to_wire(),
            }
        )

    async def list_faults(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [rule.to_wire() for rule in api.faults.rules]})

    async def add_faults(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError as exc:
            raise invalid(f"The body must be a fault, or an object with a list of 'faults': {exc}.") from exc
        rules = body.get("faults", [body]) if isinstance(body, dict) else body
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise invalid("The body must be a fault, or an object with a list of 'faults'.")
        made = api.faults.add_all(rules)
        return web.json_response({"object": "list", "data": [fault.to_wire() for fault in made]})

    async def clear_faults(_request: web.Request) -> web.Response:
        return web.json_response({"deleted": api.faults.clear()})

    async def remove_fault(request: web.Request) -> web.Response:
        fault_id = request.match_info["fault_id"]
        if not api.faults.remove(fault_id):
            raise not_found(f"No fault found with id '{fault_id}'.")
        return web.json_response({"deleted": 1})

    async def show_limits(_request: web.Request) -> web.Response:
        return web.json_response(api.limits.to_wire())

    async def change_limits(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
        except ValueError as exc:
            raise invalid(f"The body must be an object of limits: {exc}.") from exc
        if not isinstance(body, dict):
            raise invalid("The body must be an object of limits.")
        api.limits.change(body)
        return web.json_response(api.limits.to_wire())

    async def expire_container(request: web.Request) -> web.Response:
        container_id = request.match_info["container_id"]
        if api.containers.look(container_id) is None:
            raise no_such_container(container_id)
        api.containers.expire(container_id)
        await api.storage.commit()
        return web.json_response({"expired": container_id})

    async def expire_store(request: web.Request) -> web.Response:
        store_id = api.stores.find(request.match_info["store_id"])["id"]
        api.stores.expire(store_id)
        await api.storage.commit()
        return web.json_response({"expired": store_id})

    app.router.add_post("/_askq/containers/{container_id}/expire", guarded(expire_container))
    app.router.add_post("/_askq/vector_stores/{store_id}/expire", guarded(expire_store))
    app.router.add_get("/_askq/limits", guarded(show_limits))
    app.router.add_post("/_askq/limits", guarded(change_limits))
    app.router.add_get("/_askq/health", health)
    app.router.add_get("/_askq/ledger", guarded(ledger))
    app.router.add_get("/_askq/stats", guarded(stats))
    app.router.add_get("/_askq/faults", guarded(list_faults))
    app.router.add_post("/_askq/faults", guarded(add_faults))
    app.router.add_delete("/_askq/faults", guarded(clear_faults))
    app.router.add_delete("/_askq/faults/{fault_id}", guarded(remove_fault))


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise invalid(f"'{name}' must be a number from 0, but is {text!r}.", param=name)
    return int(text)
