"""What every process that decodes images does first."""

import multiprocessing
import os
import threading

import cv2


def start_worker() -> None:
    """Keep OpenCV to one thread, and end with the parent: a killed one cannot end its workers."""
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
