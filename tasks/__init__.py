"""Prefect tasks: a decorator, one call into pedfrac, perhaps a Prefect artifact."""

import logging

# Prefect shows the domain's lines in a run's log (PREFECT_LOGGING_EXTRA_LOGGERS=pedfrac) only where
# the logger itself lets them pass
logging.getLogger("pedfrac").setLevel(logging.INFO)
