"""From network outputs to a probability and a call."""
