"""The experiments, each a module with one subject: `run(size, seed, folder)` and the sizes it comes in."""
