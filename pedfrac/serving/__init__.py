"""Images in, scores out: files, DICOM, the MLflow model."""
