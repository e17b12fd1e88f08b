"""Two Celery pipelines as people write them, to measure askq against.

`tutorial` is what a blog post shows: a task that makes the run, a task that retries itself until it has ended, results
in Celery's own backend, default settings. `best_practice` is what a production guide makes of it. Neither is a straw
man: every setting beyond the defaults says whose advice it follows.
"""
