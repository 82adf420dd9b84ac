"""Augmentation keeps shape and range, changes each image by itself, and moves as it says."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pedfrac.config.training import AugmentConfig
from pedfrac.training.augmentation import augment as augmented

NOTHING = dict.fromkeys(AugmentConfig.model_fields, 0)


def augment(*given):
    return augmented(*given)[0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(8, 40), count=st.integers(1, 5))
def test_shape_and_range_are_kept(seed, size, count):
    images = torch.rand(count, 1, size, size, generator=generator(seed))
    changed = augment(images, AugmentConfig(), generator(seed))
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(changed, augment(images, AugmentConfig(), generator(seed)))


def test_no_strength_changes_nothing():
    images = torch.rand(3, 1, 20, 20)
    torch.testing.assert_close(augment(images, AugmentConfig(**NOTHING), generator()), images)


def test_images_of_a_batch_change_each_by_itself():
    images = torch.rand(1, 1, 20, 20).expand(4, -1, -1, -1).contiguous()
    changed = augment(images, AugmentConfig(), generator())
    assert all(not torch.equal(changed[0], other) for other in changed[1:])


def test_flip_alone_mirrors_left_and_right():
    images = torch.rand(2, 1, 16, 16)
    changed = augment(images, AugmentConfig(**NOTHING | {"flip": 1}), generator())
    torch.testing.assert_close(changed, images.flip(-1))


def test_shift_stays_within_its_share_of_the_side():
    images = torch.zeros(64, 1, 40, 40)
    images[:, :, 20, 20] = 1
    changed = augment(images, AugmentConfig(**NOTHING | {"shift": 0.1}), generator())
    rows = changed.sum(dim=(1, 3)).argmax(dim=1)
    assert (rows - 20).abs().max() <= 5
    assert rows.unique().numel() > 3


def test_brightness_stays_within_its_share_of_the_range():
    images = torch.full((50, 1, 8, 8), 0.5)
    means = augment(images, AugmentConfig(**NOTHING | {"brightness": 0.2}), generator()).mean(
        (1, 2, 3)
    )
    assert 0.3 <= means.min() < 0.4
    assert 0.6 < means.max() <= 0.7


def test_erasing_blanks_one_small_rectangle():
    images = torch.rand(30, 1, 40, 40)
    changed = augment(images, AugmentConfig(**NOTHING | {"erasing": 1}), generator())
    share = ((changed - images).abs() > 1e-4).float().mean(dim=(1, 2, 3))
    assert share.min() > 0.005
    assert share.max() < 0.13
