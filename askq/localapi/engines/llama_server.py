"""The process that the `llama` engine runs its model in: llama.cpp's HTTP server, out of the xllamacpp wheel.

A process of its own, because llama.cpp ends the process on some files, and so that closing it frees the memory. Its
first line of standard input is the key to ask for; it ends when standard input does, hence with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys


def main() -> None:
    """Load the model, say where it is served, and wait for the end of standard input."""
    it = argparse.ArgumentParser()
    it.add_argument("file")
    it.add_argument("--context", type=int, required=True)
    it.add_argument("--threads", type=int, required=True)
    it.add_argument("--parallel", type=int, required=True)
    given = it.parse_args()
    key = sys.stdin.readline().strip()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = given.file
    params.n_ctx = given.context * given.parallel
    params.n_parallel = given.parallel
    params.cpuparams.n_threads = given.threads
    params.cpuparams_batch.n_threads = given.threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [key]
    params.use_jinja = True
    params.ui = False
    params.verbosity = 1
    try:
        server = xllamacpp.Server(params)
    except Exception as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(1) from None
    sys.stdout.write(f"{json.dumps({'base_url': f'{server.listening_address}/v1'})}\n")
    sys.stdout.flush()
    while sys.stdin.read(4096):
        pass
    # Not an orderly end: answers that are being worked out would hold it up.
    os._exit(0)


if __name__ == "__main__":
    main()
