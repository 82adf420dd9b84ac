"""Trains by fastai's vision learner as its documentation shows, for ``compare.py``.

Options: workers, channels_last=on, precision=bf16 (a GPU's), method (how images become square).
From start weights it is ``fine_tune``, else ``fit_one_cycle``; classes are balanced by
``weighted_dataloaders`` where balance=on. The best epoch is that of highest validation AUROC.
"""

import torch
from adapter import CLASSES, Driver, Job
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    DataBlock,
    GrandparentSplitter,
    ImageBlock,
    Normalize,
    Resize,
    RocAucBinary,
    SaveModelCallback,
    accuracy,
    aug_transforms,
    get_image_files,
    parent_label,
    set_seed,
    vision_learner,
)


class Watch(Callback):
    """Tells of the training part of each epoch."""

    def __init__(self, driver: Driver):
        self.driver = driver

    def before_train(self) -> None:
        self.driver.begin()

    def after_train(self) -> None:
        self.driver.end()


def main() -> None:
    driver = Driver()
    job = driver.job
    set_seed(job.seed)
    learner = _learner(job)
    learner.add_cb(Watch(driver))
    # the images of the second class are normal, so the area is that of normal ones: the same
    if job.weights:
        best = SaveModelCallback(monitor="roc_auc_score", fname="best")
        learner.fine_tune(job.epochs - 1, cbs=best)  # an epoch with the body frozen comes first
    else:
        learner.fit_one_cycle(job.epochs)
    driver.finish(lambda: _scores(job, learner))


def _learner(job: Job):
    from timm import create_model

    data = create_model(job.backbone, pretrained=False).default_cfg
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(CLASSES))),
        get_items=_files,
        get_y=parent_label,
        splitter=GrandparentSplitter("train", "val"),
        item_tfms=Resize(job.size, method=job.option("method", "squish")),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(data["mean"], data["std"])],
    )
    options = {"bs": job.batch, "num_workers": job.workers, "device": torch.device(job.device)}
    if job.has("balance"):
        images = block.datasets(job.images)
        counts = torch.bincount(torch.tensor([int(label) for _, label in images.train]))
        labels = [CLASSES.index(parent_label(file)) for file in images.items]
        weights = [1 / float(counts[label]) for label in labels]
        loaders = block.weighted_dataloaders(job.images, weights, **options)
    else:
        loaders = block.dataloaders(job.images, **options)
    metrics = [accuracy, RocAucBinary()] if job.weights else None
    learner = vision_learner(
        loaders, job.backbone, normalize=False, pretrained=False, metrics=metrics, path=job.work
    )
    if job.weights:
        _load(job, learner)
        learner.freeze()
    if job.has("channels_last"):
        learner.to_channelslast(use_amp=False)
    if job.option("precision", "fp32") == "bf16":
        learner.to_bf16()
    return learner


def _files(images: str):
    return get_image_files(images, folders=["train", "val"])


def _load(job: Job, learner) -> None:
    """Load the start weights into the body, as ``pretrained`` would."""
    from safetensors.torch import load_file

    body = learner.model[0].model
    wanted = body.state_dict()
    found = {name: tensor for name, tensor in load_file(job.weights).items() if name in wanted}
    body.load_state_dict(found)


def _scores(job: Job, learner):
    files = get_image_files(job.part("test"))
    found, _ = learner.get_preds(dl=learner.dls.test_dl(files))
    return zip((file.name for file in files), found[:, 0].tolist(), strict=True)


if __name__ == "__main__":
    main()
