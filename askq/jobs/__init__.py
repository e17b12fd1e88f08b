"""The job store: records, schedule, leases and the table of moves."""
