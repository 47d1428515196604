"""People and their passwords: the flows by which they come, prove who they are, and go. Free of HTTP."""
