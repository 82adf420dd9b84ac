"""Where table, images and labels lie in a data folder."""

import os
from pathlib import Path

from pedfrac.config.data import DataConfig
from pedfrac.data.dataset_csv import check_header, open_dataset_csv
from pedfrac.errors import PedfracError
from pedfrac.storage.files import content_hash, file_hash, file_stamp

CSV_NAME = "dataset.csv"
LABEL_FOLDERS = ("folder_structure/yolov5/labels", "labels")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def fingerprint(config: DataConfig) -> dict[str, str]:
    """Return the fingerprint of the dataset, without opening its images.

    The hashes of dataset.csv and, with images, of the labels and of the stamps of the images.
    """
    root = Path(config.root)
    if not (root / CSV_NAME).is_file():
        raise PedfracError(f"{root / CSV_NAME}: is missing; data.root must be the folder of it")
    sources = {CSV_NAME: file_hash(root / CSV_NAME)}
    if config.images:
        sources["images"] = _listing_hash(find_image_folders(root))
        labels = find_label_folder(root)
        content = [[name, file_hash(labels / name)] for name in folder_names(labels)]
        sources["labels"] = content_hash([labels.name, content])
    return sources


def check_layout(config: DataConfig) -> None:
    """Look whether a folder can be a data set, without reading it: columns, images, labels.

    Raises the PedfracError that ``read_records`` would end in, before hours of other work.
    """
    root = Path(config.root)
    with open_dataset_csv(root / CSV_NAME) as reader:
        check_header(root / CSV_NAME, next(reader, []))
    if config.images:
        find_image_folders(root)
        find_label_folder(root)


def find_image_folders(root: Path) -> list[Path]:
    """Return the folders that hold images: every ``images*/`` under the root, by name."""
    folders = sorted(path for path in root.glob("images*") if path.is_dir())
    if not folders:
        raise PedfracError(
            f"{root}: no images*/ folder here (such as images_part1 or images); "
            "set data.images to false to read the metadata only"
        )
    return folders


def find_label_folder(root: Path) -> Path:
    """Return the folder of the YOLO labels. Without one, side markers would silently stay."""
    for name in LABEL_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise PedfracError(
        f"{root}: no labels folder here ({' or '.join(LABEL_FOLDERS)}), "
        "so no side marker could be removed and no fracture flag checked"
    )


def find_image_files(root: Path) -> dict[str, list[str]]:
    """Return the paths of all images below a root, by file stem."""
    files: dict[str, list[str]] = {}
    for folder in find_image_folders(root):
        for name in folder_names(folder):
            path = Path(name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                files.setdefault(path.stem, []).append(f"{folder.name}/{name}")
    return files


def find_left_out(root: Path) -> dict[str, str]:
    """Return what lies in the folders of images and is not read, with the reason."""
    left: dict[str, str] = {}
    for folder in find_image_folders(root):
        for entry in _entries(folder):
            name = f"{folder.name}/{entry.name}"
            if entry.is_dir():
                left[name] = "is a folder in a folder of images: not searched"
            elif not entry.is_file():
                left[name] = "is a link to nothing" if entry.is_symlink() else "is not a file"
            elif Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                left[name] = f"is not read; allowed are {', '.join(IMAGE_SUFFIXES)}"
    return left


def folder_names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, sorted."""
    return [entry.name for entry in _entries(folder) if entry.is_file()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise PedfracError(f"{folder}: cannot be read ({error.strerror})") from None


def _listing_hash(folders: list[Path]) -> str:
    return content_hash(
        [
            [folder.name, name, *file_stamp(folder / name)]
            for folder in folders
            for name in folder_names(folder)
        ]
    )
