"""The bundle: all networks of a retraining, with their thresholds and preparation."""
