"""Prefect flows and the command line: order, fan-out, and what happens when one group fails."""
