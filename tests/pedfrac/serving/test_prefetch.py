"""Images read in threads and processes: in order, each once, and a crash costs one image."""

import os

import numpy as np
import pytest
from crashing import read_or_crash
from dicom_files import write_dicom
from small_bundles import write_image

from pedfrac.serving.images import find_images
from pedfrac.serving.prefetch import prepared_batches

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def images(tmp_path):
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name in ("a.dcm", "b.dcm", "crash.dcm", "d.dcm", "e.dcm"):
        write_dicom(tmp_path / name, pixels)
    write_image(tmp_path / "c.png")
    return find_images([tmp_path])


def readers(batches):
    return [one.note.removeprefix("read by ") for batch in batches for one in batch]


def test_images_come_in_batches_in_their_order(images):
    whole = [image for image in images if image.path.stem != "crash"]
    batches = list(prepared_batches(whole, read_or_crash, batch_size=2))
    assert [[one.image.path.stem for one in batch] for batch in batches] == [
        *(["a", "b"], ["c", "d"], ["e"])
    ]
    assert set(readers(batches)) == {str(os.getpid())}, "few images need no process"


def test_dicom_is_read_by_processes_and_a_crash_costs_one_image(images):
    batches = list(prepared_batches(images, read_or_crash, batch_size=2, few=1))
    found = {one.image.path.name: one for batch in batches for one in batch}
    assert list(found) == ["a.dcm", "b.dcm", "c.png", "crash.dcm", "d.dcm", "e.dcm"]
    here = {name for name, one in found.items() if one.note == f"read by {os.getpid()}"}
    assert here == {"a.dcm", "c.png"}
    failed = [one for one in found.values() if one.error]
    assert [one.image.path.name for one in failed] == ["crash.dcm"]
    assert failed[0].error.endswith(
        "crash.dcm: the process that decoded it crashed, or was killed for memory"
    )
