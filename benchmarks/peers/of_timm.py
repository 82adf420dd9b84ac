"""Trains by timm's own ``train.py``, unchanged, for ``compare.py``.

Options: workers, compile=on, precision=bf16, channels_last=on, scale (least area of a crop). Only
what the script documents; it has no correction of class imbalance. Its best epoch is that of least
validation loss.
"""

import importlib.util
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from adapter import CLASSES, Driver, Job
from timm import create_model
from timm.data import create_dataset, create_loader, resolve_data_config


def main() -> None:
    driver = Driver()
    script = _load(driver.job)
    # its older versions leave out to say that the device is no GPU
    device = torch.device(driver.job.device)
    script.train_one_epoch = driver.timed(partial(script.train_one_epoch, device=device))
    script.validate = partial(script.validate, device=device)
    sys.argv = ["train.py", *_arguments(driver.job)]
    script.main()
    driver.finish(lambda: _scores(driver.job))


def _load(job: Job) -> ModuleType:
    spec = importlib.util.spec_from_file_location("train", job.script)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def _arguments(job: Job) -> list[str]:
    size, settings = str(job.size), Path(job.work) / "settings.yaml"
    settings.write_text(f"device: {job.device}\n")  # older scripts have no option of that name
    found = [
        *("--config", str(settings)),
        *("--data-dir", job.images, "--train-split", "train", "--val-split", "val"),
        *("--model", job.backbone, "--num-classes", str(len(CLASSES))),
        *("--input-size", "3", size, size, "--crop-pct", "1.0"),
        *("--batch-size", str(job.batch), "--epochs", str(job.epochs), "--seed", str(job.seed)),
        *("--opt", "adamw", "--lr", "1e-3", "--weight-decay", "0.05"),
        *("--sched", "cosine", "--sched-on-updates", "--warmup-epochs", "1"),
        *("--scale", job.option("scale", "0.08"), "1.0"),
        *("--eval-metric", "loss", "--checkpoint-hist", "1", "--workers", str(job.workers)),
        *("--output", job.work, "--experiment", "run"),
    ]
    if job.weights:
        found += ["--initial-checkpoint", _start(job)]
    if job.has("compile"):
        found += ["--torchcompile"]
    if job.has("channels_last"):
        found += ["--channels-last"]
    if job.option("precision", "fp32") == "bf16":
        found += ["--amp", "--amp-dtype", "bfloat16"]
    return found


def _start(job: Job) -> str:
    """Write the start weights with the new head that the script would not make by itself."""
    from safetensors.torch import load_file

    network = create_model(job.backbone, pretrained=False, num_classes=len(CLASSES))
    wanted = network.state_dict()
    found = {
        name: tensor
        for name, tensor in load_file(job.weights).items()
        if tensor.shape == wanted[name].shape
    }
    path = Path(job.work) / "start.pth"
    torch.save(wanted | found, path)
    return str(path)


def _scores(job: Job):
    best = Path(job.work) / "run" / "model_best.pth.tar"
    network = create_model(job.backbone, num_classes=len(CLASSES), checkpoint_path=str(best))
    config = resolve_data_config(
        {"input_size": [3, job.size, job.size], "crop_pct": 1.0}, model=network
    )
    images = create_dataset("", root=job.images, split="test")
    loader = create_loader(
        images, config["input_size"], 64, mean=config["mean"], std=config["std"],
        interpolation=config["interpolation"], crop_pct=config["crop_pct"], num_workers=0,
        use_prefetcher=False,
    )  # fmt: skip
    network.eval()
    with torch.inference_mode():
        found = torch.cat([network(batch).softmax(1)[:, 0] for batch, _ in loader])
    return zip(images.filenames(basename=True), found.tolist(), strict=True)


if __name__ == "__main__":
    main()
