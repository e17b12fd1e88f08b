"""One task that asks and waits for the answer."""
