"""What a process is told: settings, Celery options and the wording of events."""
