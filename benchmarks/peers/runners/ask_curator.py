"""bespokelabs-curator on its OpenAI backend, with the cache it keeps to resume from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Imported for what it does: it points tiktoken, which would download its vocabulary, to the copy litellm ships.
import litellm.litellm_core_utils.default_encoding  # noqa: F401
from asked import MODEL, at_a_time, read_list, write_answers
from bespokelabs import curator


class Asker(curator.LLM):
    """A row is a question."""

    def prompt(self, row: dict[str, Any]) -> str:
        return str(row["question"])

    def parse(self, row: dict[str, Any], response: str) -> list[dict[str, str]]:
        return [{"question": row["question"], "answer": response}]


def main(questions: list[str], answers: Path) -> None:
    more = {} if (most := at_a_time()) is None else {"max_concurrent_requests": most}
    asker = Asker(model_name=MODEL, backend="openai", backend_params={"require_all_responses": False, **more})
    made = asker([{"question": question} for question in questions], working_dir=str(answers.parent / "curator"))
    rows = made.dataset if hasattr(made, "dataset") else made
    write_answers(answers, [(row["question"], row["answer"]) for row in rows])


if __name__ == "__main__":
    main(read_list(Path(sys.argv[1])), Path(sys.argv[2]))
