"""inspect-ai: `eval_set`, which goes on where a run was interrupted; the answers are the samples' completions."""

from __future__ import annotations

import sys
from pathlib import Path

from asked import MODEL, at_a_time, read_list, write_answers
from inspect_ai import Task, eval_set, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import read_eval_log
from inspect_ai.solver import generate

QUESTIONS = read_list(Path(sys.argv[1]))


@task
def askq_list() -> Task:
    samples = [Sample(id=f"q{number:04d}", input=question) for number, question in enumerate(QUESTIONS)]
    return Task(dataset=MemoryDataset(samples), solver=generate())


def main(answers: Path) -> None:
    more = {} if (most := at_a_time()) is None else {"max_connections": most, "max_samples": most}
    _, logs = eval_set(
        askq_list(), log_dir=str(answers.parent / "inspect"), model=f"openai/{MODEL}", display="none", **more
    )
    found = {}
    for log in logs:
        whole = read_eval_log(log.location)
        found |= {str(one.input): one.output.completion for one in whole.samples or [] if one.output.choices}
    write_answers(answers, found.items())


if __name__ == "__main__":
    main(Path(sys.argv[2]))
