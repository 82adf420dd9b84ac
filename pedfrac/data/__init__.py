"""From dataset.csv to the split: records, cohort, patients."""
