"""`python -m askq.localapi`: run a local API from the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from askq.localapi.errors import LocalApiError
from askq.localapi.options import LLAMA_CONTEXT, LLAMA_THREADS, RUN_LIFETIME_S, Options
from askq.localapi.server import Server, endpoint_json, serve
from askq.localapi.storage import MEMORY


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m askq.localapi",
        description="An OpenAI-shaped HTTP server on this machine: Assistants v2, Responses, Conversations.",
    )
    it.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    it.add_argument("--port", type=int, default=0, help="port to listen on; 0 (default): any free one")
    it.add_argument("--data", default=MEMORY, metavar="FOLDER", help="data folder; :memory: (default) keeps nothing")
    it.add_argument("--engine", choices=("tutor", "chat", "llama", "script"), default="tutor", help="who answers")
    it.add_argument("--script", type=Path, metavar="FILE", help="script engine: what to answer (JSON or TOML)")
    it.add_argument("--chat-url", metavar="URL", help="chat engine: base URL of a chat-completions server")
    it.add_argument("--chat-model", metavar="MODEL", help="chat engine: model to ask for, whatever the client names")
    it.add_argument("--model-file", type=Path, metavar="FILE", help="llama engine: the model, a GGUF file")
    it.add_argument("--context", type=int, default=LLAMA_CONTEXT, metavar="TOKENS", help="llama engine")
    it.add_argument("--threads", type=int, default=LLAMA_THREADS, help="llama engine: of the processor")
    it.add_argument("--key", help="the only bearer key to accept (default: any)")
    it.add_argument("--model", action="append", default=[], help="a model that exists; repeatable (default: any)")
    it.add_argument("--run-lifetime", type=float, default=RUN_LIFETIME_S, metavar="SECONDS", help="expiry of a run")
    it.add_argument("--idempotency", action="store_true", help="honour Idempotency-Key (OpenAI does not)")
    it.add_argument("--limit", action="append", default=[], metavar="NAME=VALUE", help="a rate limit; repeatable")
    it.add_argument("--client-ids", action="store_true", help="take ids of responses from the client, as vLLM does")
    it.add_argument("--endpoint-file", type=Path, metavar="FILE", help="write the base URL there when ready")
    it.add_argument("--allow-remote", action="store_true", help="listen on an address other machines can reach")
    it.add_argument("--exit-with-stdin", action="store_true", help="end when standard input does")
    return it


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until stopped; the exit code."""
    given = parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="localapi: %(message)s")
    try:
        limits = dict(_limit(text) for text in given.limit)
    except ValueError as exc:
        sys.stderr.write(f"localapi: --limit takes NAME=VALUE, such as requests_per_second=20: {exc}\n")
        return 1
    options = Options(
        engine=given.engine,
        data=given.data,
        host=given.host,
        port=given.port,
        allow_remote=given.allow_remote,
        key=given.key,
        models=tuple(given.model),
        script=given.script,
        chat_url=given.chat_url,
        chat_model=given.chat_model,
        model_file=given.model_file,
        llama_context=given.context,
        llama_threads=given.threads,
        chat_key=os.environ.get("ASKQ_CHAT_API_KEY") or None,
        run_lifetime_s=given.run_lifetime,
        idempotency=given.idempotency,
        limits=limits,
        client_ids=given.client_ids,
        endpoint_file=given.endpoint_file,
        exit_with_stdin=given.exit_with_stdin,
    )
    try:
        asyncio.run(serve(options, ready=_say_ready))
    except LocalApiError as exc:
        sys.stderr.write(f"localapi: {exc}\n")
        return 1
    except KeyboardInterrupt:  # before the server took the signal over
        return 130
    return 0


def _limit(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _say_ready(server: Server) -> None:
    sys.stdout.write(f"{endpoint_json(server.base_url)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
