"""Who answers: the Celery application, its thin tasks, the pure steps and the protocol adapters."""
