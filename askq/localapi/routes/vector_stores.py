"""Vector stores: create, list, retrieve, modify, delete, search."""

from __future__ import annotations

from askq.localapi import fields
from askq.localapi.api import Api, Call, Reply, Route
from askq.localapi.errors import ApiError, invalid, not_found
from askq.localapi.files.chunks import LEAST_SIZE, MOST_SIZE
from askq.localapi.files.filters import checked_filter
from askq.localapi.files.stores import CHUNKING, expires_at
from askq.localapi.wire import JsonObject, page

FILES = 500
NAME_CHARS = 256
QUERY_CHARS = 4096
RESULTS = 50
QUERIES = 20
MOST_DAYS = 365


def missing_files(file_ids: list[str]) -> ApiError:
    """404: what OpenAI answers where files are to be put somewhere."""
    return not_found(f"Files {file_ids} were not found.".replace("'", ""))


def check_files(api: Api, file_ids: list[str], param: str) -> list[JsonObject]:
    """The files of these ids; raises ApiError."""
    for file_id in file_ids:
        if not file_id.startswith("file"):
            raise invalid(
                f"Invalid '{param}': '{file_id}'. Expected an ID that begins with 'file'.",
                param=param,
                code="invalid_value",
            )
    found = {file_id: api.files.get(file_id) for file_id in dict.fromkeys(file_ids)}
    missing = [file_id for file_id, file in found.items() if file is None]
    if missing:
        raise missing_files(missing)
    return [file for file in found.values() if file is not None]


def checked_chunking(body: JsonObject) -> JsonObject:
    """`chunking_strategy` as it is stored; raises ApiError."""
    given = fields.obj(body, "chunking_strategy")
    if given is None or fields.one_of(given, "type", ("auto", "static")) != "static":
        return CHUNKING
    static = fields.obj(given, "static") or {}
    size = fields.whole(static, "max_chunk_size_tokens", least=LEAST_SIZE)
    overlap = fields.whole(static, "chunk_overlap_tokens", least=0)
    if size is None or size > MOST_SIZE:
        raise invalid(
            f"Invalid 'chunking_strategy.static.max_chunk_size_tokens': expected a value from {LEAST_SIZE} to "
            f"{MOST_SIZE}.",
            param="chunking_strategy",
        )
    if overlap is None or overlap > size // 2:
        raise invalid(
            "Invalid 'chunking_strategy.static.chunk_overlap_tokens': expected at most half of "
            "'max_chunk_size_tokens'.",
            param="chunking_strategy",
        )
    return {"type": "static", "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}}


def checked_expiry(body: JsonObject) -> JsonObject | None:
    """`expires_after`; raises ApiError."""
    given = fields.obj(body, "expires_after")
    if given is None:
        return None
    fields.required_text(given, "anchor")
    fields.one_of(given, "anchor", ("last_active_at",))
    days = fields.whole(given, "days", least=1)
    if days is None or days > MOST_DAYS:
        raise invalid(f"Invalid 'expires_after.days': expected 1 to {MOST_DAYS}.", param="expires_after.days")
    return {"anchor": "last_active_at", "days": days}


def store_wire(api: Api, body: JsonObject) -> JsonObject:
    """A store as it is given out."""
    files = api.stores.files(body["id"])
    counts = api.stores.counts(files)
    status = body["status"]
    if status != "expired" and counts["in_progress"]:
        status = "in_progress"
    return {
        **body,
        "status": status,
        "file_counts": counts,
        "usage_bytes": sum(file["usage_bytes"] for file in files if api.stores.status(file) == "completed"),
        "expires_at": expires_at(body),
    }


def create_store(api: Api, body: JsonObject) -> JsonObject:
    """A new store with its files; raises ApiError and then leaves nothing behind."""
    fields.only(body, frozenset({"name", "description", "file_ids", "expires_after", "chunking_strategy", "metadata"}))
    file_ids = fields.strings(body, "file_ids")
    fields.check_count(file_ids, "file_ids", FILES)
    files = check_files(api, file_ids, "file_ids")
    chunking = checked_chunking(body)
    store = api.stores.add(
        name=fields.text(body, "name", most=NAME_CHARS) or "",
        description=fields.text(body, "description"),
        metadata=fields.metadata(body),
        expires_after=checked_expiry(body),
    )
    for file in files:
        api.stores.add_file(store["id"], file, chunking=chunking)
    return store


def _create(api: Api, call: Call) -> Reply:
    return Reply(body=store_wire(api, create_store(api, call.body)))


def _list(api: Api, call: Call) -> Reply:
    data, has_more = fields.cut_page(api.stores.all(), fields.page_query(call.query))
    return Reply(body=page([store_wire(api, store) for store in data], has_more=has_more))


def _store(api: Api, call: Call) -> JsonObject:
    return api.stores.find(call.params["vector_store_id"])


def _retrieve(api: Api, call: Call) -> Reply:
    return Reply(body=store_wire(api, _store(api, call)))


def _update(api: Api, call: Call) -> Reply:
    store, body = _store(api, call), call.body
    fields.only(body, frozenset({"name", "expires_after", "metadata"}))
    changes: JsonObject = {"metadata": fields.merged_metadata(store["metadata"], body)}
    if "expires_after" in body:
        changes["expires_after"] = checked_expiry(body)
    if body.get("name") is not None:
        changes["name"] = fields.text(body, "name", most=NAME_CHARS)
    return Reply(body=store_wire(api, api.store.change(store["id"], **changes)))


def _delete(api: Api, call: Call) -> Reply:
    store_id = _store(api, call)["id"]
    api.stores.remove(store_id)
    return Reply(body={"id": store_id, "object": "vector_store.deleted", "deleted": True})


def _search(api: Api, call: Call) -> Reply:
    store, body = _store(api, call), call.body
    fields.only(body, frozenset({"query", "filters", "max_num_results", "ranking_options", "rewrite_query"}))
    if store["status"] == "expired":
        raise invalid(f"Vector store with id '{store['id']}' is expired.")
    if isinstance(body.get("query"), list):
        queries = fields.strings(body, "query")
        fields.check_count(queries, "query", QUERIES)
    else:
        queries = [fields.required_text(body, "query", most=QUERY_CHARS)]
    most = fields.whole(body, "max_num_results", least=1) or 10
    if most > RESULTS:
        raise invalid(
            f"Invalid 'max_num_results': integer above maximum value. Expected a value <= {RESULTS}, but got {most} "
            "instead.",
            param="max_num_results",
            code="integer_above_max_value",
        )
    ranking = fields.obj(body, "ranking_options") or {}
    threshold = fields.number(ranking, "score_threshold", low=0, high=1) or 0.0
    chosen = checked_filter(fields.obj(body, "filters"))
    api.stores.use(store["id"])

    async def found() -> JsonObject:
        hits = await api.stores.search([store["id"]], queries, limit=most, threshold=threshold, chosen=chosen)
        return {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": [
                {
                    "file_id": hit.file_id,
                    "filename": hit.filename,
                    "score": hit.score,
                    "attributes": hit.attributes,
                    "content": [{"type": "text", "text": hit.text}],
                }
                for hit in hits
            ],
            "has_more": False,
            "next_page": None,
        }

    return Reply(later=found)


ROUTES = (
    Route("POST", "/vector_stores", _create),
    Route("GET", "/vector_stores", _list),
    Route("GET", "/vector_stores/{vector_store_id}", _retrieve),
    Route("POST", "/vector_stores/{vector_store_id}", _update),
    Route("DELETE", "/vector_stores/{vector_store_id}", _delete),
    Route("POST", "/vector_stores/{vector_store_id}/search", _search),
)
