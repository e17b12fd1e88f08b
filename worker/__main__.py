"""`python -P -m worker …`: Celery's command line (`worker`, `flower`, `inspect` and the others) for our application.

`celery -A worker.celery` does the same, but looks for modules in the current folder first: a `config.py` beside
somebody's list would be taken for ours.
"""

import sys

from worker.celery import app

sys.exit(app.start(sys.argv[1:]))
