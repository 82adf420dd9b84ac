"""Synthetic radiographs of wrists, in the layout of the published dataset."""
