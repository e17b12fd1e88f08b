"""Celery pipelines as people write them, to measure askq against.

`blocking` is what a web application begins with: a task that waits for the answer. `tutorial` is what a blog post
shows: a task that makes the run, a task that retries itself until it has ended, results in Celery's own backend,
default settings. `best_practice` is what a production guide makes of it. None is a straw man: every setting beyond the
defaults says whose advice it follows.
"""
