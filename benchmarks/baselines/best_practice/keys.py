"""Where the production guide's pipeline keeps its state: three hashes by the question's id. And one number."""

ANSWERS = "best-practice:answers"
RUNS = "best-practice:runs"
FAILED = "best-practice:failed"

# Celery's "Using Redis", "Visibility timeout": longer than the longest countdown and the longest task (three tries of
# 15 seconds), and not longer, because that is how long the work of a dead worker waits.
VISIBILITY_S = 60
