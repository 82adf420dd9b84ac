"""Trains a timm network by Ultralytics' classification trainer, for ``compare.py``.

The network enters by the documented hook, ``get_model`` of a trainer of one's own. Options:
workers, compile=on, precision=bf16, cache (ram, disk). Learning rate, optimiser, augmentation and
choice of the best epoch are Ultralytics' defaults.
"""

import torch
from adapter import CLASSES, Driver, Job
from timm import create_model
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.nn.tasks import BaseModel, ClassificationModel


class TimmNetwork(ClassificationModel):
    """A timm network in the clothes that Ultralytics' trainer expects."""

    def __init__(self, job: Job):
        BaseModel.__init__(self)
        network = create_model(job.backbone, pretrained=False, num_classes=len(CLASSES))
        network.i, network.f = 0, -1  # its place in the chain, and whose output it takes
        self.model, self.save = torch.nn.Sequential(network), []
        self.stride = torch.Tensor([1])
        self.names = dict(enumerate(CLASSES))
        self.yaml = {"nc": len(CLASSES), "channels": 3}
        if job.weights:
            from safetensors.torch import load_file

            wanted = network.state_dict()
            found = {
                name: tensor
                for name, tensor in load_file(job.weights).items()
                if tensor.shape == wanted[name].shape
            }
            network.load_state_dict(found, strict=False)


def main() -> None:
    driver = Driver()
    job = driver.job

    class Trainer(ClassificationTrainer):
        def get_model(self, cfg=None, weights=None, verbose=True):
            return TimmNetwork(job)

    trainer = Trainer(overrides=_settings(job))
    trainer.add_callback("on_train_epoch_start", driver.begin)
    trainer.add_callback("on_train_epoch_end", driver.end)
    trainer.train()
    driver.finish(lambda: _scores(job, trainer))


def _settings(job: Job) -> dict:
    precision = job.option("precision", "fp32")
    return {
        "model": "yolo11n-cls.yaml",  # named, but get_model brings the network
        "data": job.images,
        "imgsz": job.size,
        "batch": job.batch,
        "epochs": job.epochs,
        "seed": job.seed,
        "workers": job.workers,
        "device": job.device,
        "project": job.work,
        "name": "run",
        "amp": "bf16" if precision == "bf16" else False,
        "compile": job.has("compile"),
        "cache": job.option("cache", "ram"),
        "plots": False,
        "verbose": False,
        "pretrained": True,
        "patience": job.epochs,
        "deterministic": False,
    }


def _scores(job: Job, trainer: ClassificationTrainer):
    best = torch.load(trainer.best, map_location="cpu", weights_only=False)
    network = (best["ema"] or best["model"]).float().eval()
    images = trainer.build_dataset(str(job.part("test")), mode="val")
    loader = torch.utils.data.DataLoader(images, batch_size=64)
    with torch.inference_mode():
        found = torch.cat([network(batch["img"].float()).softmax(1)[:, 0] for batch in loader])
    return zip((sample[0] for sample in images.samples), found.tolist(), strict=True)


if __name__ == "__main__":
    main()
