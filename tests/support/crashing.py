"""Reading of images, by processes of their own, that some images take down."""

import os

from pedfrac.serving.images import Image, PreparedImage


def read_or_crash(image: Image) -> PreparedImage:
    if "crash" in image.path.name:
        os._exit(7)
    return PreparedImage(image, note=f"read by {os.getpid()}")
