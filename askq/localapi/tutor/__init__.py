"""Answers school mathematics by computing: writes a SymPy program, runs it confined, says what it printed.

With files (`askq.localapi.engines.tutor_files`) it computes on tables (`tables`) and quotes from stores (`passages`).

A demonstration, not a model: what it does not recognise, it says it cannot do. `recognise` has the table of kinds.
"""

from askq.localapi.tutor.answer import Solution, close, solve

__all__ = ["Solution", "close", "solve"]
