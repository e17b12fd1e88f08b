"""The parts put together: an aiohttp application for given options."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from askq.localapi.api import Api
from askq.localapi.engines.base import Engine
from askq.localapi.engines.chat import ChatEngine
from askq.localapi.engines.llama import LlamaEngine
from askq.localapi.engines.script import ScriptEngine
from askq.localapi.engines.script_file import Script, parse_script, read_script
from askq.localapi.engines.tutor import TutorEngine
from askq.localapi.errors import LocalApiError
from askq.localapi.faults import Faults
from askq.localapi.files.blobs import Blobs, Place
from askq.localapi.files.containers import Containers
from askq.localapi.files.desk import Desk, Places
from askq.localapi.files.filing import Files
from askq.localapi.files.products import Products
from askq.localapi.files.stores import Stores
from askq.localapi.gate import endpoint, make_gate
from askq.localapi.idempotency import Idempotency
from askq.localapi.limits import Limits
from askq.localapi.options import Options
from askq.localapi.routes import (
    admin,
    assistants,
    containers,
    conversations,
    files,
    items,
    messages,
    models,
    responses,
    runs,
    store_files,
    threads,
    vector_stores,
)
from askq.localapi.scribes.assistants import AssistantsScribe
from askq.localapi.scribes.given import Belongings
from askq.localapi.scribes.responses import ResponsesScribe
from askq.localapi.stats import Stats
from askq.localapi.storage import Storage
from askq.localapi.store import KINDS, Kind, Store
from askq.localapi.works import WORK_KINDS, Works

CLEAN_S = 30.0
BODY_BYTES = 64 * 1024 * 1024
"""The largest request body; a string input may have 10 million characters."""

API: web.AppKey[Api] = web.AppKey("api", Api)
_RESOURCES = (
    models,
    assistants,
    threads,
    messages,
    runs,
    conversations,
    items,
    responses,
    files,
    containers,
    vector_stores,
    store_files,
)


def create_app(options: Options, *, script: Script | None = None) -> web.Application:
    """An application with its data folder open; it is closed when the application is cleaned up.

    `script` takes the place of `options.script`. Raises LocalApiError for options that cannot work, and for a data
    folder or script file that cannot be used.
    """
    options.check()
    if script is None:
        script = parse_script({}) if options.script is None else read_script(options.script)
    engine = _engine(options, script)
    storage = Storage.open(options.data)
    store = Store(storage)
    place = Place(options.data)
    filed = Files(store, Blobs(place.blobs, storage), options.clock)
    contained = Containers(store, filed.blobs, options.clock)
    stores = Stores(storage, store, filed, (place.stores, place.work), options.clock)
    stores.fates = script.fate
    products = Products(filed, contained)
    belongings = Belongings(store, filed, contained, stores)
    works = Works(storage, store, engine, options.clock, products)
    works.register("assistants", AssistantsScribe(store, products, belongings))
    works.register("responses", ResponsesScribe(store, works, products, belongings))
    places = Places(filed.blobs, stores, place.work)
    works.desk = lambda request: Desk(places, request)
    faults = Faults()
    faults.add_all(script.faults)
    limits = Limits()
    limits.change(options.limits)
    api = Api(
        options=options,
        storage=storage,
        store=store,
        works=works,
        engine=engine,
        place=place,
        files=filed,
        containers=contained,
        stores=stores,
        faults=faults,
        limits=limits,
        stats=Stats(),
    )
    app = web.Application(middlewares=[make_gate(api)], client_max_size=BODY_BYTES)
    app[API] = api
    idempotency = Idempotency()
    for resource in _RESOURCES:
        for route in resource.ROUTES:
            app.router.add_route(route.method, f"/v1{route.path}", endpoint(api, route, idempotency))
    admin.add_routes(app, api)
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_stop_waiting)
    return app


def _engine(options: Options, script: Script) -> Engine:
    match options.engine:
        case "tutor":
            return TutorEngine(options.tutor_concurrency)
        case "script":
            return ScriptEngine(script)
        case "llama":
            assert options.model_file is not None  # `check` has seen to it
            return LlamaEngine(
                options.model_file,
                context=options.llama_context,
                threads=options.llama_threads,
                concurrency=options.llama_concurrency,
                timeout_s=options.chat_timeout_s,
            )
        case "chat":
            if options.chat_url is None:
                raise LocalApiError("The chat engine needs --chat-url.")
            return ChatEngine(
                options.chat_url,
                model=options.chat_model,
                key=options.chat_key,
                timeout_s=options.chat_timeout_s,
                concurrency=options.chat_concurrency,
            )


async def _running(app: web.Application) -> AsyncIterator[None]:
    api = app[API]
    janitor = None
    try:
        _load(api)
        api.works.resume()
        await api.stores.resume()
        janitor = asyncio.create_task(_clean(api), name="localapi-janitor")
        yield
    finally:
        if janitor is not None:
            janitor.cancel()
        await api.stores.close()
        await api.works.close()
        await api.engine.close()
        _close_sandbox()
        await api.storage.close()
        api.place.leave()


async def _clean(api: Api) -> None:
    """Now and then, let go of what has expired: its bytes are not to wait until somebody asks for it."""
    while True:
        await asyncio.sleep(CLEAN_S)
        api.files.sweep()
        api.containers.sweep()
        api.stores.all()
        api.storage.commit_soon()


async def _stop_waiting(app: web.Application) -> None:
    app[API].closing.set()


def _close_sandbox() -> None:
    sandbox = sys.modules.get("askq.localapi.tutor.sandbox")
    if sandbox is not None:
        sandbox.close_shared()


def _load(api: Api) -> None:
    """Take everything out of the data folder into memory."""
    kinds: dict[str, Kind] = {kind: kind for kind in KINDS}
    for stored in api.storage.objects():
        if stored.kind in WORK_KINDS:
            api.works.load(stored)
        else:
            api.store.load(stored, kinds[stored.kind])
            if stored.kind in ("file", "container_file"):
                api.files.blobs.hold(stored.body["blob"])
    api.files.blobs.sweep()
