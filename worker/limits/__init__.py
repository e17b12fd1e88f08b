"""How this process keeps to what accounts grant: permits for calls, estimates of tokens, and when runs take how long."""
