"""Other tools that put lists of questions to OpenAI, measured beside askq on the same server.

Each peer is one command that reads a list and writes answers (`runners/`), in an environment of its own
(`environments.py`) with the versions of `manifest.toml`. `front.py` stands between every contender, askq included, and
the local API: it enforces a limit, speaks chat completions, and notes when the first request and the last answer came.
"""
