"""The local API: an OpenAI-shaped HTTP server that speaks Assistants v2, Responses and Conversations.

    python -m askq.localapi --engine script --script prescribed.toml --data folder

prints `{"base_url": "http://127.0.0.1:PORT/v1"}` when it is ready. Beside OpenAI's endpoints it has

    GET  /_askq/health                       is it there
    GET  /_askq/ledger?after=N&limit=M       every run and response that was created, in order, never changed
    GET  /_askq/stats                        requests, runs, objects and faults counted
    GET  POST DELETE /_askq/faults           requests that go wrong on purpose (`askq.localapi.faults`)

It has assistants, threads, messages, runs and their steps, models, conversations and their items, and responses, the
runs and responses also as streams of events. It has no files, vector stores, containers or prompt objects, and says so
when they are asked for.

Entries of the ledger have the outputs of function calls that were accepted, by round and call id.

The engines are `tutor` (computes), `chat` (forwards), `llama` (serves a GGUF file) and `script` (prescribed:
`askq.localapi.engines.script_file`). In code: `async with running(Options(engine="script")) as server: …`, or
`create_app` for a bare aiohttp application.
"""
