"""The parts askq brings along where nothing is configured: a real Redis, the local API, and who looks after them."""
