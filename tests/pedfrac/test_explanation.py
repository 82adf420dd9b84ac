"""Heat maps lie where the evidence is, figures have known answers, pictures are what they say."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch import nn

from pedfrac.config import ExplanationConfig, ModelConfig, Preparation
from pedfrac.errors import PedfracError
from pedfrac.explanation import METHODS, explain_group, heat_maps, localisation
from pedfrac.models import FilmClassifier, build_model
from pedfrac.packing import Pack
from pedfrac.records import CLASSES

CPU = torch.device("cpu")
CONVNEXT = ("convnextv2_atto", 64, {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]})
SWIN = (
    "swin_tiny_patch4_window7_224",
    48,
    {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
)
NETWORKS = [CONVNEXT, SWIN, ("resnet10t", 64, {}), ("tf_efficientnet_lite0", 64, {})]


def build(backbone: str, size: int, options: dict) -> FilmClassifier:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, size=size, options=options, weights="none")
    return build_model(config, 2)


def noise(n: int, size: int):
    return np.random.default_rng(0).integers(0, 256, (n, size, size), dtype=np.uint8)


class Brightness(nn.Module):
    """Calls a film fractured for what shines in it: feature 0 is brightness, 1 is darkness."""

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


def brightness(**options) -> FilmClassifier:
    return FilmClassifier(Brightness(**options), mean=0.0, std=1.0)


def square(size: int, x: int, y: int, side: int):
    film = np.full((size, size), 30, np.uint8)
    film[y : y + side, x : x + side] = 250
    return film


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network[0])
@pytest.mark.parametrize("method", METHODS)
def test_maps_are_finite_and_scaled_for_every_backbone(network, method):
    maps = heat_maps(build(*network), noise(3, network[1]), 1, method, device=CPU, batch_size=2)
    assert maps.shape == (3, network[1], network[1])
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1


@pytest.mark.parametrize(
    ("network", "block"),
    [(CONVNEXT, lambda n: n.stages[-1].blocks[-1]), (SWIN, lambda n: n.layers[-1].blocks[-1])],
    ids=["convnext", "swin"],
)
def test_the_map_is_that_of_the_last_block(network, block):
    """Grad-CAM by its formula (Selvaraju 2017, equations 1 and 2) on the block's output."""
    model, films = build(*network).eval(), noise(1, network[1])
    seen = {}
    hook = block(model.network).register_forward_hook(lambda *a: seen.update(out=a[2]))
    logits = model(torch.from_numpy(films)[:, None].float() / 255)
    hook.remove()
    for target in (0, 1):
        (gradient,) = torch.autograd.grad(logits[0, target], seen["out"], retain_graph=True)
        last = network is SWIN
        axes = (1, 2) if last else (2, 3)
        weighted = gradient.mean(axes, keepdim=True) * seen["out"]
        expected = torch.relu(weighted.sum(3 if last else 1))[0].detach()
        expected = (expected - expected.min()) / (expected.max() - expected.min() + 1e-12)
        map_ = heat_maps(model, films, target, "gradcam", device=CPU)
        wide = torch.nn.functional.interpolate(
            expected[None, None], network[1], mode="bilinear", align_corners=False
        )[0, 0]
        wide = (wide - wide.min()) / (wide.max() - wide.min() + 1e-12)
        np.testing.assert_allclose(map_[0], wide, atol=2e-3)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_peak_lies_in_the_square_that_the_network_answers_to(method, channels_last):
    places = [(8, 40), (44, 12), (24, 24)]
    films = np.stack([square(64, x, y, 12) for x, y in places])
    boxes = [np.array([[x, y, x + 12, y + 12]], np.float32) for x, y in places]
    maps = heat_maps(brightness(channels_last=channels_last), films, 1, method, device=CPU)
    found = localisation(maps, boxes)
    assert found.hit.all()
    assert (found.mass > 0.6).all()
    np.testing.assert_allclose(found.area, (12 / 64) ** 2)


def test_each_film_may_have_a_target_of_its_own():
    films = np.stack([square(64, 8, 40, 12)] * 2)
    both = heat_maps(brightness(), films, np.array([0, 1]), "gradcam", device=CPU)
    for target in (0, 1):
        alone = heat_maps(brightness(), films[:1], target, "gradcam", device=CPU)
        np.testing.assert_array_equal(both[target], alone[0])
    assert both[0, 46, 14] < 0.1 < both[1, 46, 14]


def test_no_evidence_makes_a_map_of_zeros():
    films = np.stack([square(64, 8, 40, 12)])
    for method in METHODS:
        for sign in (0, -1):
            assert not heat_maps(brightness(sign=sign), films, 1, method, device=CPU).any()


def test_the_model_is_left_as_it_was():
    model = build(*CONVNEXT).train()
    heat_maps(model, noise(2, 64), 1, "gradcam", device=CPU)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_no_films_make_no_maps():
    assert heat_maps(build(*CONVNEXT), noise(0, 64), 1, "gradcam", device=CPU).shape == (0, 64, 64)


def test_an_index_error_is_not_swallowed():
    with pytest.raises(IndexError):
        heat_maps(build(*CONVNEXT), noise(1, 64), 7, "gradcam", device=CPU)


def test_broken_weights_are_named():
    model = build(*CONVNEXT)
    model.network.stages[-1].blocks[-1].mlp.fc2.bias.data.fill_(torch.nan)
    with pytest.raises(PedfracError, match="2 of 2 gradcam heat maps are not finite"):
        heat_maps(model, noise(2, 64), 1, "gradcam", device=CPU)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (("vit_tiny_patch16_224", 32, {"depth": 1}), "vit_tiny_patch16_224: no heat maps, blocks"),
        (("hrnet_w18_small", 64, {}), "hrnet_w18_small: no heat maps, stage4 gives list"),
    ],
)
def test_networks_without_a_last_map_are_refused_by_name(network, message):
    with pytest.raises(PedfracError, match=message):
        heat_maps(build(*network), noise(1, network[1]), 1, "gradcam", device=CPU)


def test_a_network_that_tells_nothing_and_an_unknown_method_are_refused():
    model = FilmClassifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), 0.0, 1.0)
    with pytest.raises(PedfracError, match="Sequential: no heat maps"):
        heat_maps(model, noise(1, 4), 1, "gradcam", device=CPU)
    with pytest.raises(PedfracError, match="'scorecam': allowed are gradcam, hirescam, gradcam"):
        heat_maps(model, noise(1, 4), 1, "scorecam", device=CPU)


# --- localisation ---------------------------------------------------------------------------


def test_localisation_known_answers():
    heat = np.zeros((4, 10, 10), np.float32)
    heat[0, 2, 3], heat[0, 8, 8] = 1, 0.25  # peak in the first of two boxes
    heat[1, 8, 8], heat[1, 2, 3] = 1, 0.25
    heat[3] = 0.5  # flat
    boxes = np.array([[2, 1, 5, 4], [4, 1, 6, 4]], np.float32)  # 3x3 and 2x3, of which 3 shared
    found = localisation(heat, [boxes, boxes, np.empty((0, 4)), boxes])
    assert found.film.tolist() == [0, 1, 3]
    assert found.hit.tolist() == [True, False, False]
    np.testing.assert_allclose(found.mass, [0.8, 0.2, 0.12])
    np.testing.assert_allclose(found.area, 0.12)


def test_area_counts_the_film_only_and_mass_all_heat():
    heat = np.ones((1, 10, 10), np.float32)
    heat[0, 0, 0] = 2  # beside the film
    found = localisation(heat, [np.array([[4, 0, 10, 5]])], [(2, 0, 7, 10)])
    assert found.hit.tolist() == [False]
    np.testing.assert_allclose(found.area, 15 / 50)
    np.testing.assert_allclose(found.mass, 15 / 101)


def test_films_without_boxes_have_no_localisation():
    found = localisation(np.ones((2, 4, 4), np.float32), [np.empty((0, 4))] * 2)
    assert [len(part) for part in (found.film, found.hit, found.mass, found.area)] == [0] * 4


corner = st.floats(-3, 15, width=32)
box = st.tuples(corner, corner, corner, corner).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)
heats = arrays(np.float32, (1, 12, 12), elements=st.sampled_from([0, 0.125, 0.5, 1]))


@given(heats, st.lists(box, min_size=1, max_size=4), box)
def test_localisation_properties(heat, boxes, another):
    def meet(heat, boxes):
        found = localisation(heat, [np.array(boxes)])
        return found.hit[0], found.mass[0], found.area[0]

    hit, mass, area = meet(heat, boxes)
    assert 0 <= mass <= 1 + 1e-9
    assert 0 <= area <= 1
    assert meet(heat, boxes[::-1] + boxes) == (hit, mass, area)
    np.testing.assert_allclose(meet(heat / 4, boxes), (hit, mass, area))
    more = meet(heat, [*boxes, another])
    assert more[0] >= hit
    assert more[1] >= mass - 1e-9
    assert more[2] >= area
    flat = heat.max() == heat.min()
    assert meet(heat, [(0, 0, 12, 12)]) == (not flat, 1, 1)


# --- a group --------------------------------------------------------------------------------

SIZE = 64


def make_pack(n: int) -> Pack:
    """Films with a bright square; every second has a box: around the square, save of film 0."""
    rng = np.random.default_rng(1)
    places = rng.integers(20, 36, (n, 2))
    images = np.stack([square(SIZE, x, y, 10) for x, y in places])
    stems = [f"{row:04}_film" for row in range(n)]
    index = pd.DataFrame(
        {
            "filestem": stems,
            "patient_id": np.arange(n) // 2,
            "age": np.linspace(5, 9.9, n),
            "width": 300,
            "height": 600,
        }
    )
    rows = np.arange(0, n, 2)
    corners = np.concatenate([places[rows] - 1, places[rows] + 11], axis=1).astype(float)
    corners[0] = [17, 1, 22, 4]
    boxes = pd.DataFrame(corners, columns=["x1", "y1", "x2", "y2"])
    boxes = boxes.assign(row=rows, class_id=CLASSES.index("fracture"))
    return Pack(images, index, boxes, Preparation(size=SIZE))


def explain(folder, n=12, most=5, rows=None, probability=None, name="5-10y"):
    pack = make_pack(n)
    rows = np.arange(n) if rows is None else rows
    truth = rows % 2 == 0
    if probability is None:  # films 0, 3 and 6 are judged wrongly
        probability = np.where(truth == (rows % 3 != 0), 0.9, 0.1) + rows / 1000
    config = ExplanationConfig(films_per_group=most)
    return explain_group(
        folder, name, brightness(), pack, rows, truth, probability, 0.5, config, device=CPU
    )


def test_group_figures_have_known_answers(tmp_path):
    figures = explain(tmp_path)
    assert figures == json.loads((tmp_path / "5-10y" / "figures.json").read_text())
    assert (figures["group"], figures["films"], figures["with_boxes"]) == ("5-10y", 12, 6)
    assert figures["pointing"]["value"] == pytest.approx(5 / 6)
    # Wilson's interval of 5 in 6, from the closed form: six patients have a box.
    assert figures["pointing"]["low"] == pytest.approx(0.4365, abs=1e-3)
    assert figures["pointing"]["high"] == pytest.approx(0.9699, abs=1e-3)
    mass = figures["mass"]
    assert 0 < mass["low"] < mass["value"] < mass["high"] < 1
    # Boxes of 12 x 12 and one of 5 x 3 on films that fill half the letterbox.
    assert figures["chance"] == pytest.approx((5 * 144 + 15) / 6 / (SIZE * SIZE / 2))


def test_errors_of_both_kinds_are_shown_first(tmp_path):
    probability = np.array([0.2, 0.6, 0.1, 0.9, 0.8, 0.7, 0.95, 0.2, 0.51, 0.1])
    figures = explain(tmp_path, n=10, most=8, probability=probability)
    assert figures["pictures"] == [
        "0002_film_miss.png",
        "0003_film_false-alarm.png",
        "0000_film_miss.png",
        "0005_film_false-alarm.png",
        "0001_film_false-alarm.png",
        "0006_film_hit.png",
        "0004_film_hit.png",
        "0008_film_hit.png",
    ]
    assert figures["verdicts"] == {"hit": 3, "miss": 2, "false-alarm": 3, "correct-rejection": 2}
    written = {path.name for path in (tmp_path / "5-10y").iterdir()}
    assert written == {*figures["pictures"], "montage.png", "figures.json"}


def test_the_same_films_make_the_same_bytes(tmp_path):
    explain(tmp_path / "a", most=2)
    explain(tmp_path / "b", most=2)
    for path in (tmp_path / "a" / "5-10y").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "5-10y" / path.name).read_bytes()


def test_a_montage_of_noise_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr("pedfrac.explanation.MONTAGE_BYTES", 40_000)
    explain(tmp_path, most=1)
    path = tmp_path / "5-10y" / "montage.png"
    assert path.stat().st_size <= 40_000
    assert Image.open(path).mode == "RGB"


def test_a_group_without_boxes_says_why_it_has_no_figures(tmp_path):
    figures = explain(tmp_path, rows=np.array([1, 3, 5]))
    for name in ("pointing", "mass"):
        assert figures[name]["value"] is figures[name]["low"] is None
        assert figures[name]["reason"] == "no film with a fracture box"
    assert figures["chance"] is None


def test_one_patient_has_no_bootstrap_interval(tmp_path):
    figures = explain(tmp_path, rows=np.array([2]))
    assert figures["mass"]["value"] > 0.5
    assert figures["mass"]["low"] is None
    assert figures["mass"]["reason"] == "one patient only"


def test_an_empty_group_has_a_montage_that_says_so(tmp_path):
    figures = explain(tmp_path, rows=np.array([], np.int64))
    assert figures["films"] == 0
    assert (tmp_path / "5-10y" / "montage.png").exists()
