"""Trains by AutoTimm's classifier and trainer as its documentation shows, for ``compare.py``.

Options: workers, compile=off, precision=bf16, backend (torchvision, albumentations), balance=on
(its balanced sampling), lr. The search for a learning rate before the training is off: its time
would count. The best epoch is that of least validation loss, AutoTimm's default.
"""

import torch
from adapter import CLASSES, Driver, Job
from autotimm import AutoTrainer, ImageClassifier, ImageDataModule
from autotimm.core.backbone import BackboneConfig
from pytorch_lightning import Callback


class Watch(Callback):
    """Tells of the training part of each epoch, which ends where validation starts."""

    def __init__(self, driver: Driver):
        self.driver = driver

    def on_train_epoch_start(self, *_) -> None:
        self.driver.begin()

    def on_validation_start(self, *_) -> None:
        self.driver.end()


def main() -> None:
    driver = Driver()
    job = driver.job
    images = ImageDataModule(
        data_dir=job.images,
        image_size=job.size,
        batch_size=job.batch,
        num_workers=job.workers,
        transform_backend=job.option("backend", "torchvision"),
        persistent_workers=job.workers > 0,
        pin_memory=job.device != "cpu",
        balanced_sampling=job.has("balance"),
    )
    model = _model(job)
    trainer = AutoTrainer(
        max_epochs=job.epochs,
        accelerator="cpu" if job.device == "cpu" else "gpu",
        devices=1,
        precision="bf16-mixed" if job.option("precision", "fp32") == "bf16" else 32,
        tuner_config=False,
        callbacks=[Watch(driver)],
        default_root_dir=job.work,
        seed=job.seed,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=images)
    driver.finish(lambda: _scores(trainer, model, images))


def _model(job: Job) -> ImageClassifier:
    model = ImageClassifier(
        backbone=BackboneConfig(job.backbone, pretrained=False),
        num_classes=len(CLASSES),
        lr=float(job.option("lr", "1e-3")),
        compile_model=job.option("compile", "on") == "on",
        seed=job.seed,
        deterministic=False,
    )
    if job.weights:
        from safetensors.torch import load_file

        body = getattr(model.backbone, "_orig_mod", model.backbone)
        wanted = body.state_dict()
        found = {name: tensor for name, tensor in load_file(job.weights).items() if name in wanted}
        body.load_state_dict(found)
    return model


def _scores(trainer: AutoTrainer, model: ImageClassifier, images: ImageDataModule):
    best = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=False)
    model.load_state_dict(best["state_dict"])
    images.setup("test")
    loader = torch.utils.data.DataLoader(images.test_dataset, batch_size=64)
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(batch).softmax(1)[:, 0] for batch, _ in loader])
    return zip((name for name, _ in images.test_dataset.samples), found.tolist(), strict=True)


if __name__ == "__main__":
    main()
