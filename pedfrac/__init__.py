"""Fracture classification on paediatric wrist radiographs: pixels, patients, models, metrics."""
