"""The application, for `celery -A worker.celery`."""

from config.settings import load
from worker.app import create_or_end

app = create_or_end(load)
