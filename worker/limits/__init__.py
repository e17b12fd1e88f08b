"""How this process keeps to what accounts grant: permits for calls, tokens they count for, and how long runs take."""
