"""Reading of films, by processes of their own, that some films take down."""

import os

from pedfrac.serving.images import Film, PreparedFilm


def read_or_crash(film: Film) -> PreparedFilm:
    if "crash" in film.path.name:
        os._exit(7)
    return PreparedFilm(film, note=f"read by {os.getpid()}")
