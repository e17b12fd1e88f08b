"""The application, for `celery -A worker.celery`."""

from config.settings import load
from worker.app import create_app

app = create_app(load())
