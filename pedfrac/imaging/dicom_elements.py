"""Elements of a DICOM header: taken raw, and shown only where they cannot tell of a patient."""

import re

from pydicom import Dataset

from pedfrac.errors import PedfracError


def shown(text: str) -> str:
    """Return a code of the header as a message may show it: where a length is damaged, an element
    reaches into the next one, which may be the patient's name.
    """
    if not text:
        return "not stated"
    return text if re.fullmatch(r"[\w ./()-]{1,64}", text, re.ASCII) else "not readable"


def is_stated(dataset: Dataset, name: str) -> bool:
    """Return whether an element is there and not empty."""
    element = dataset.get_item(name)
    return element is not None and element.value not in (None, b"", "")


def text_of(dataset: Dataset, name: str) -> str:
    """Return an element as upper case text, taken raw: pydicom's warnings would print its value."""
    element = dataset.get_item(name)
    value = b"" if element is None or element.value is None else element.value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.split("\\")[0].strip(" \0").upper()


def number_of(file: str, header: Dataset, name: str) -> int | None:
    """Return an element as a number, None where it is missing; raise PedfracError for another."""
    try:
        value = header.get(name)
        return None if value is None else int(value)
    except (TypeError, ValueError):
        raise PedfracError(f"{file}: {name} is no number") from None
