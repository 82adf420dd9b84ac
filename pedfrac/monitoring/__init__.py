"""Monitoring: drift of incoming images against the reference of the bundle."""
