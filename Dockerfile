# One image for the worker, Flower, the local API and the askq command.
# Built in two stages, so that neither uv nor a compiler travels with it.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build

ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv>=0.13,<0.14"
WORKDIR /app
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project
COPY README.md LICENSE ./
COPY askq askq
COPY assistants assistants
COPY config config
COPY producer producer
COPY worker worker
RUN uv sync --locked --no-dev --no-editable


FROM python:${PYTHON}-slim

# The worker must not run as root, and needs to write only to /tmp and /data.
RUN groupadd --gid 10001 askq \
    && useradd --uid 10001 --gid askq --home-dir /data --no-create-home askq \
    && install -d -o askq -g askq /data /data/local-api /data/files
COPY --from=build --chown=root:root /app/.venv /app/.venv
COPY assistants /data/assistants
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 ASKQ_HOME=/tmp/.askq ASKQ_HEARTBEAT_FILE=/tmp/worker.alive
WORKDIR /data
USER 10001:10001

# Ctrl-C and `docker stop` reach Celery itself: SIGTERM lets it finish the calls that are open.
CMD ["celery", "-A", "worker.celery", "worker", "--queues", "askq.start,askq.poll", "--concurrency", "2", \
     "--hostname", "askq@%h", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
