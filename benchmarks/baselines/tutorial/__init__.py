"""The pipeline of a tutorial."""
