"""What a run leaves beside its metrics, made up: trainings, images' pictures, metrics of others."""

import cv2
import numpy as np
from pydantic import BaseModel

from pedfrac.evaluation.published import published_references


def add_what_a_run_leaves(findings):
    """Return findings with histories, pooled folds, pictures' names and published metrics."""
    trainings = {
        name: one | {"history": _history(one["summary"]["best_epoch"])}
        for name, one in findings["training"].items()
    }
    folds = {"folds": 2, "images": 90, "patients": 80, "held_out": [{"images": 45, "patients": 40}]}
    return findings | {
        "title": "Paediatric wrist fractures: a made-up retraining",
        "training": trainings,
        "folds": folds | {name: findings[name] for name in ("groups", "subsets")},
        "published": [one.model_dump(mode="json") for one in published_references()],
        "explanation": {
            name: part
            | {"pictures": [f"0001_0902668301_01_WRI-L1_M0{n:02d}_miss.png" for n in range(8)]}
            for name, part in findings["explanation"].items()
        },
    }


def draw_montages(folder, names):
    """Draw bright bones on black with a warm heat spot and a box; return the files by name."""
    return {name: _montage(folder / f"{name}.png") for name in names}


def each_interval(tree):
    """Yield each metric with bounds of a tree of models, or of dicts and lists."""
    if isinstance(tree, BaseModel):
        tree = tree.model_dump()
    if isinstance(tree, dict):
        if {"value", "low", "high"} <= tree.keys():
            yield tree
        for branch in tree.values():
            yield from each_interval(branch)
    elif isinstance(tree, list):
        for branch in tree:
            yield from each_interval(branch)


def _history(best, epochs=5):
    def part(epoch, gap):
        reached = 1 - 0.4 * np.exp(-epoch / 2) - gap
        return {"loss": 0.7 * np.exp(-epoch / 3) + gap, "auroc": reached, "f1": reached}

    return [
        {"epoch": epoch, "training": part(epoch, 0.01), "validation": part(epoch, 0.05)}
        | {"learning_rate": 3e-4, "best": epoch == best}
        for epoch in range(1, epochs + 1)
    ]


def _montage(path, columns=4, rows=2, side=224):
    picture = np.zeros((rows * side, columns * 2 * side, 3), np.uint8)
    for row in range(rows):
        for column in range(columns * 2):
            x, y = column * side, row * side
            for bone in (80, 140):
                tip = (x + bone + 8 * row, y + side)
                cv2.line(picture, (x + bone, y), tip, (170, 170, 170), 30)
            if column % 2:
                cv2.circle(picture, (x + 90, y + 110), 34, (40, 110, 240), -1)
            cv2.rectangle(picture, (x + 60, y + 80), (x + 120, y + 150), (0, 220, 255), 2)
    cv2.imwrite(str(path), picture)
    return path
