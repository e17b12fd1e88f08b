"""The OpenAI SDK with asyncio.gather: `gather` as a quickstart has it, `semaphore` as a careful author has it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from asked import MODEL, at_a_time, line, read_list, write_answers
from openai import AsyncOpenAI


async def gather(questions: list[str], answers: Path) -> None:
    """Everything at once; what failed after the SDK's own two retries is left out."""
    async with AsyncOpenAI() as client:
        calls = [client.responses.create(model=MODEL, input=question) for question in questions]
        replies = await asyncio.gather(*calls, return_exceptions=True)
    pairs = zip(questions, replies, strict=True)
    write_answers(answers, [(one, reply.output_text) for one, reply in pairs if not isinstance(reply, BaseException)])


def answered(answers: Path) -> set[str]:
    """Questions with an answer in the file, whose last line may be half of one: it is cut off."""
    if not answers.exists():
        return set()
    whole, _, _ = answers.read_text("utf-8").rpartition("\n")
    answers.write_text(whole + "\n" if whole else "", "utf-8")
    return {json.loads(one)["question"] for one in whole.splitlines()}


async def semaphore(questions: list[str], answers: Path) -> None:
    """So many at a time, each answer written when it comes; those already there are not asked again."""
    there = answered(answers)
    slots = asyncio.Semaphore(at_a_time() or 20)
    with answers.open("a", encoding="utf-8", buffering=1) as file:
        async with AsyncOpenAI() as client:

            async def ask(question: str) -> None:
                async with slots:
                    reply = await client.responses.create(model=MODEL, input=question)
                file.write(line(question, reply.output_text))

            await asyncio.gather(*(ask(one) for one in questions if one not in there), return_exceptions=True)


if __name__ == "__main__":
    way = {"gather": gather, "semaphore": semaphore}[sys.argv[3]]
    asyncio.run(way(read_list(Path(sys.argv[1])), Path(sys.argv[2])))
