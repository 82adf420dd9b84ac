"""Small networks whose answers are known or whose weights are random, and images for them."""

import numpy as np
import torch
from torch import nn

from pedfrac.config.training import ModelConfig
from pedfrac.models.classifier import ImageClassifier, build_model
from pedfrac.models.heads import Classes

CPU = torch.device("cpu")
CONVNEXT = ("convnextv2_atto", 64, {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
SWIN = (
    "swin_tiny_patch4_window7_224",
    48,
    {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
)
NETWORKS = [CONVNEXT, SWIN, ("resnet10t", 64, {}), ("tf_efficientnet_lite0", 64, {})]


def build(backbone: str, size: int, options: dict) -> ImageClassifier:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, size=size, options=options, weights="none")
    return build_model(config, 2)


def noise(n: int, size: int):
    return np.random.default_rng(0).integers(0, 256, (n, size, size), dtype=np.uint8)


class Brightness(nn.Module):
    """Calls an image fractured for what shines in it: feature 0 is brightness, 1 is darkness."""

    def __init__(self, sign: float = 1, channels_last: bool = False):
        super().__init__()
        self.features = _Stage(channels_last)
        self.feature_info = [{"module": "features", "num_chs": 2}]
        self.output_fmt = "NHWC" if channels_last else "NCHW"
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[0.0, 1.0], [sign, 0.0]])

    def forward(self, x):
        axes = (1, 2) if self.output_fmt == "NHWC" else (2, 3)
        return self.head(self.features(x).mean(axes))


class _Stage(nn.Module):
    def __init__(self, channels_last: bool):
        super().__init__()
        self.channels_last = channels_last
        self.pool = nn.AvgPool2d(4)

    def forward(self, x):
        bright = torch.relu(self.pool(x) - 0.5)
        out = torch.cat([bright, 1 - bright], dim=1)
        return out.permute(0, 2, 3, 1) if self.channels_last else out


def brightness(**options) -> ImageClassifier:
    return ImageClassifier(Brightness(**options), 0.0, 1.0, Classes(2))


def square(size: int, x: int, y: int, side: int):
    image = np.full((size, size), 30, np.uint8)
    image[y : y + side, x : x + side] = 250
    return image
