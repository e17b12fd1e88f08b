"""Server-sent events of both protocols.

A stream is nobody's property: it is told anew to each connection from the work itself, so that closing a connection
stops nothing, and so that a response's events have the same numbers whenever they are told. A planned course
(`script`) is told along the clock; an engine that speaks while it works (`chat`) is told as it speaks; what another
engine has worked out (`tutor`) is told at once when it is there, in the same small pieces.
"""
