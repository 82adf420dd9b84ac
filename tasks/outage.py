"""Calls to the Prefect server that outlast its absence."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect.exceptions import PrefectHTTPStatusError

from pedfrac.errors import PedfracError

logger = logging.getLogger(__name__)

PAUSE = 2.0  # seconds between calls
OUTAGE = 900.0  # seconds that the server may be away
T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Return what a call to the server returns, called again while the server is away.

    Raises PedfracError when it was away for longer than ``OUTAGE`` seconds.
    """
    until = time.monotonic() + OUTAGE
    while True:
        try:
            return call()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            status = getattr(getattr(error, "response", None), "status_code", 503)
            if status < 500:
                raise
            if time.monotonic() > until:
                raise PedfracError(f"the Prefect server does not answer: {error}") from error
            logger.warning("the Prefect server does not answer (%s); asking again", error)
            time.sleep(PAUSE)
