"""The `tutor` engine: questions that can be computed, answered by `askq.localapi.tutor`."""

from __future__ import annotations

from askq.localapi.engines.base import Code, Outcome, Output, Plan, Request, Text


class TutorEngine:
    """Writes a program for the question, runs it confined, and answers from its output."""

    name = "tutor"
    models = ("askq-tutor",)

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._used = False

    def plan(self, request: Request) -> Plan | None:
        """Nothing is planned: everything is computed."""
        return None

    async def answer(self, request: Request) -> Outcome:
        """Solve the last question; its code and what that printed come before the text."""
        # Imported here: the tutor brings SymPy's weight, which the other engines need not carry.
        from askq.localapi.tutor import solve

        self._used = True
        solution = await solve(request.question, request.history)
        outputs: list[Output] = []
        if solution.code is not None:
            outputs.append(Code(source=solution.code, logs=solution.logs or ""))
        outputs.append(Text(value=solution.text))
        return Outcome(outputs=tuple(outputs))

    async def close(self) -> None:
        """End the process the tutor computes in, if it was ever needed."""
        if self._used:
            from askq.localapi.tutor import close

            close()
