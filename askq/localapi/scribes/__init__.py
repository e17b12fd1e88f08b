"""How each protocol words a request to the engine, and how it writes down and shows what came of it."""
