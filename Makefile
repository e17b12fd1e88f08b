# One word per intent. Everything runs in the project's own environment, which `uv` makes.
.PHONY: setup test lint types docs check bench chaos sbom image

setup:            ## install everything a developer needs
	uv sync --locked

test:             ## run the tests
	uv run --locked pytest

lint:             ## style, formats, import contracts, container files
	uv run --locked ruff check .
	uv run --locked ruff format --check .
	uv run --locked lint-imports
	uv run --locked check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	uv run --locked hadolint --failure-threshold warning Dockerfile

types:            ## mypy, strict
	uv run --locked mypy

docs:             ## write the generated pages anew
	uv run --locked python -m docs.build

check: lint types test

bench:            ## the short profile of every benchmark
	uv run --locked python -m benchmarks --tiny

chaos:            ## everything goes wrong, for a quarter of an hour
	uv run --locked python -m tests.chaos --profile full --json chaos.json

sbom:             ## write sbom.cdx.json, what askq is made of (CycloneDX)
	uv export --frozen --no-dev --quiet --preview-features sbom-export --format cyclonedx1.5 --output-file sbom.cdx.json

image:            ## build the container image
	REDIS_PASSWORD=unused ASKQ_FLOWER_PASSWORD=unused docker compose build
