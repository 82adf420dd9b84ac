"""The one error that a user may meet. Not for bugs: those keep their own types and tracebacks."""


class PedfracError(Exception):
    """Input that cannot be used; the message names where, what was found and what is allowed."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Return a text in which bytes of a file name that are no UTF-8 are written as ``\\xe9``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
