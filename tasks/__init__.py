"""Prefect tasks: a decorator, one call into pedfrac, perhaps a Prefect artifact."""

import logging

# Prefect shows their lines in a run's log (PREFECT_LOGGING_EXTRA_LOGGERS=pedfrac,flows,tasks) only
# where the logger itself lets them pass
for name in ("pedfrac", "flows", "tasks"):
    logging.getLogger(name).setLevel(logging.INFO)
