"""Writers of answers: the result line, files of it, and a look at it on a terminal.

writer = writer_for("answers.csv", columns=summary.columns, roles=summary.roles)
writer.check()  # before the work: can it be written there?
writer.write(jobs)  # after it: whole or not at all
"""

from __future__ import annotations

from producer.answers.plain import plain
from producer.answers.record import KEYS, to_record
from producer.answers.table import print_table
from producer.answers.writer import FORMATS, SUFFIXES, Writer, writer_for

__all__ = ["FORMATS", "KEYS", "SUFFIXES", "Writer", "plain", "print_table", "to_record", "writer_for"]
