"""Writers of answers: the result line, files of it, and a look at it on a terminal.

writer = writer_for("answers.csv", columns=summary.columns, roles=summary.roles)
writer.check()  # before the work: can it be written there?
writer.write(jobs)  # after it: whole or not at all

Each comes from its own module, because `askq status` needs one line of them.
"""
