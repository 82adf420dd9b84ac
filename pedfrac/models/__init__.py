"""Networks: timm backbones on one grey channel, and their heads."""
