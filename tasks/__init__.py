"""Prefect tasks: a decorator, one call into pedfrac, perhaps a Prefect artifact."""
