"""The one error that a user may meet. Not for bugs: those keep their own types and tracebacks."""


class PedfracError(Exception):
    """Input, configuration or data that cannot be used; the message names what and what is allowed."""
