"""async-batch-llm with its checkpoint file, as its README's "Production runs" has it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from asked import MODEL, at_a_time, read_list, write_answers
from async_batch_llm import ArtifactIdentity, JsonlArtifactStore, ProcessorConfig, ResumePolicy, llm, process_prompts


async def main(questions: list[str], answers: Path) -> None:
    identity = ArtifactIdentity(provider="openai", model=MODEL)
    more = {} if (most := at_a_time()) is None else {"concurrency": most}
    batch = await process_prompts(
        llm(f"openai:{MODEL}", base_url=os.environ["OPENAI_BASE_URL"]),
        [(f"q{number:04d}", question) for number, question in enumerate(questions)],
        config=ProcessorConfig(**more),
        artifact_store=JsonlArtifactStore(answers.with_suffix(".checkpoint"), identity=identity),
        resume=ResumePolicy.REUSE_SUCCESSES,
        preserve_order=True,
    )
    pairs = zip(questions, batch.results, strict=True)
    write_answers(answers, [(question, result.output) for question, result in pairs if result.success])


if __name__ == "__main__":
    asyncio.run(main(read_list(Path(sys.argv[1])), Path(sys.argv[2])))
