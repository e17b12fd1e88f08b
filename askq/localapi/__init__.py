"""The local API: an OpenAI-shaped HTTP server that speaks Assistants v2, Responses and Conversations.

    python -m askq.localapi --engine script --script prescribed.toml --data folder

prints `{"base_url": "http://127.0.0.1:PORT/v1"}` when it is ready. Beside OpenAI's endpoints it has

    GET  /_askq/health                       is it there
    GET  /_askq/ledger?after=N&limit=M       every run and response that was created, in order
    GET  /_askq/stats                        requests, runs, objects and faults counted
    GET  POST DELETE /_askq/faults           requests that go wrong on purpose (`askq.localapi.faults`)
    POST /_askq/containers/ID/expire         a container's time is over; the same for `/_askq/vector_stores/ID/expire`

It has assistants, threads, messages, runs and their steps, models, conversations and their items, and responses, the
runs and responses also as streams of events; files, containers, and vector stores that are really searched (BM25, in
every language). It has no prompt objects, fetches nothing from the web, and says so when it is asked to.

Entries of the ledger have the outputs of function calls that were accepted, by round and call id. When a run or
response is deleted its entry stays, with a digest in the place of the question and without those outputs. What is
deleted is gone from the disk within a second: files' bytes lie in `blobs/` of the data folder, once for each content,
and the index of each store is a file of its own in `stores/`.

The engines are `tutor` (computes), `chat` (forwards), `llama` (serves a GGUF file) and `script` (prescribed:
`askq.localapi.engines.script_file`). In code: `async with running(Options(engine="script")) as server: …`, or
`create_app` for a bare aiohttp application.
"""
