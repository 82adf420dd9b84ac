"""The one error that a user may meet. Not for bugs: those keep their own types and tracebacks."""


class PedfracError(Exception):
    """Input that cannot be used; the message names where, what was found and what is allowed."""
