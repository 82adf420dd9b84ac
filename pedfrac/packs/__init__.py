"""Packs: prepared images in memory-mapped arrays."""
