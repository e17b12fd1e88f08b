"""autobatcher, as its README's "Parallel requests" has it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from asked import MODEL, at_a_time, read_list, write_answers
from autobatcher import AsyncOpenAI


async def main(questions: list[str], answers: Path) -> None:
    more = {} if (most := at_a_time()) is None else {"max_concurrent_requests": most}
    async with AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"], **more) as client:
        calls = [client.responses.create(model=MODEL, input=question) for question in questions]
        replies = await asyncio.gather(*calls, return_exceptions=True)
    pairs = zip(questions, replies, strict=True)
    write_answers(answers, [(one, reply.output_text) for one, reply in pairs if not isinstance(reply, BaseException)])


if __name__ == "__main__":
    asyncio.run(main(read_list(Path(sys.argv[1])), Path(sys.argv[2])))
