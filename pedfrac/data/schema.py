"""Columns of dataset.csv and of the tables made from it: types and allowed values."""

from typing import Any, get_args

import pandera.pandas as pa

from pedfrac.config.training import FindingClass

COLUMNS = (
    "filestem",
    "patient_id",
    "study_number",
    "timehash",
    "gender",
    "age",
    "laterality",
    "projection",
    "initial_exam",
    "ao_classification",
    "cast",
    "diagnosis_uncertain",
    "osteopenia",
    "fracture_visible",
    "metal",
    "pixel_spacing",
    "device_manufacturer",
)
FLAGS = (
    "initial_exam",
    "cast",
    "diagnosis_uncertain",
    "osteopenia",
    "fracture_visible",
    "metal",
)
CLASSES: tuple[str, ...] = get_args(FindingClass)  # in the order of the class numbers
INTEGERS = ("patient_id", "study_number", "timehash", "projection")
FACT_TYPES: dict[str, Any] = {"width": "int64", "height": "int64", "sha256": "str"}
TABLE_TYPES: dict[str, Any] = (
    dict.fromkeys(COLUMNS, "str")
    | dict.fromkeys(INTEGERS, "int64")
    | dict.fromkeys(FLAGS, "bool")
    | {"age": "float64", "pixel_spacing": "float64"}
    | {"image": "str"}
    | FACT_TYPES
)
BOX_NUMBERS: dict[str, Any] = {"class_id": "int64"} | dict.fromkeys(
    ("xc", "yc", "w", "h"), "float64"
)
BOX_TYPES: dict[str, Any] = {"filestem": "str"} | BOX_NUMBERS
ISSUE_TYPES: dict[str, Any] = {
    "filestem": "str",
    "line": "int64",
    "kind": "str",
    "field": "str",
    "value": "str",
    "reason": "str",
    "dropped": "bool",
}

# What a cell may hold, in the words of the issue that names one which does not.
ALLOWED = {
    "patient_id": "must be a whole number",
    "study_number": "must be a whole number",
    "timehash": "must be a whole number",
    "gender": "must be M, F or O",
    "age": "must be a number of years from 0 to 25",
    "laterality": "must be L or R",
    "projection": "must be 1 (AP), 2 (lateral) or 3 (other)",
    "pixel_spacing": "must be empty or a positive number of millimetres, at most 10",
} | dict.fromkeys(FLAGS, "must be 1 or empty")
_WHOLE = [pa.Check.in_range(0, 10**15), pa.Check(lambda values: values % 1 == 0)]
_FLAG = pa.Column(float, pa.Check.isin((0, 1)))
SCHEMA = pa.DataFrameSchema(
    {
        "patient_id": pa.Column(float, _WHOLE),
        "study_number": pa.Column(float, _WHOLE),
        "timehash": pa.Column(float, _WHOLE),
        "gender": pa.Column(None, pa.Check.isin(("M", "F", "O"))),
        "age": pa.Column(float, pa.Check.in_range(0, 25)),
        "laterality": pa.Column(None, pa.Check.isin(("L", "R"))),
        "projection": pa.Column(float, pa.Check.isin((1, 2, 3))),
        # An empty spacing is read as 1: only what is written can be wrong.
        "pixel_spacing": pa.Column(float, pa.Check.in_range(0, 10, include_min=False)),
    }
    | dict.fromkeys(FLAGS, _FLAG)
)
STEM_PARTS = ("patient_id", "timehash", "study_number", "laterality", "projection", "gender", "age")
STEM_PATTERN = r"\A([0-9]{4,15})_([0-9]{1,15})_([0-9]{2,})_WRI-([LR])([0-9])_([MFO])([0-9]{3})\Z"
