"""Running the functions that runs have asked for, in processes that may die of it."""
