"""Estimates and intervals by patient; nothing here knows of images."""
