"""Assistants: one TOML file each, in OpenAI's own field names, that serves both protocols."""
