"""What finding maps cost: processor seconds of a training step and of a prediction.

Seconds of the processor, not of the clock, so that a busy machine matters little; with and without
take turns.
"""

import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from torch import nn

from pedfrac.config.training import MapsConfig, ModelConfig
from pedfrac.models.classifier import ImageClassifier, build_model


def networks(backbone: str, size: int, classes: int) -> dict[str, ImageClassifier]:
    """Return the network without and with maps, of random weights."""
    config, maps = ModelConfig(backbone=backbone, size=size, weights="none"), MapsConfig()
    shape = maps.shape(maps.classes[:classes])
    return {
        name: build_model(config, 2, maps=one).to(memory_format=torch.channels_last)
        for name, one in (("without", None), ("with", shape))
    }


def step(model: ImageClassifier, images: torch.Tensor) -> None:
    """Do what a training step does to a network: forward and backward."""
    output, maps = model.look(images)
    loss = nn.functional.cross_entropy(output, torch.zeros(len(images), dtype=torch.long))
    if maps is not None:
        target = torch.zeros_like(maps)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(maps, target)
    loss.backward()


@torch.inference_mode()
def predict(model: ImageClassifier, images: torch.Tensor) -> None:
    """Do what a prediction does."""
    model.answers(images)


def benchmark(
    backbone: Annotated[str, typer.Option(help="timm model")] = "convnextv2_tiny",
    size: Annotated[int, typer.Option(help="Side of the input")] = 384,
    batch: Annotated[int, typer.Option(help="Images at a time")] = 4,
    classes: Annotated[int, typer.Option(help="Maps")] = 8,
    rounds: Annotated[int, typer.Option(help="Steps of each, in turn")] = 5,
) -> None:
    """Print the median processor seconds per image of each, and what maps add."""
    torch.set_num_threads(1)
    both = networks(backbone, size, classes)
    shape = (batch, 1, size, size)
    images = torch.rand(shape).contiguous(memory_format=torch.channels_last)
    tasks: dict[str, Callable[[ImageClassifier, torch.Tensor], None]]
    tasks = {"training step": step, "prediction": predict}
    for task, work in tasks.items():
        spent: dict[str, list[float]] = {name: [] for name in both}
        for turn in range(rounds + 1):
            for name, model in both.items():
                model.train(task == "training step")
                start = time.process_time()
                work(model, images)
                if turn:  # the first one warms up
                    spent[name].append((time.process_time() - start) / batch)
        found = {name: torch.tensor(each).median().item() for name, each in spent.items()}
        ratio = found["with"] / found["without"] - 1
        print(
            f"{backbone} {size} px, {task}: {found['without']:.3f} s without, "
            f"{found['with']:.3f} s with {classes} maps ({ratio:+.1%})"
        )


if __name__ == "__main__":
    typer.run(benchmark)
