"""Training: fitting networks to packed images."""
