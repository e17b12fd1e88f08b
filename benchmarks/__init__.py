"""Measurements, each with its command, machine, date and caveats."""
