"""The bundle: all networks of a retraining, with thresholds and preparation, ready for prediction."""
