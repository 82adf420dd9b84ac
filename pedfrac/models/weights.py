"""Pretrained weights for machines that cannot reach timm's hub: fetched elsewhere, missed early.

Not here: loading them into a network (classifier).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg

from pedfrac.config.retrain import RetrainConfig
from pedfrac.errors import PedfracError

FILE = "model.safetensors"
PATIENCE = 10.0  # seconds for the hub to answer


def fetch_weights(backbone: str, folder: Path) -> Path:
    """Write a backbone's published weights to ``folder/BACKBONE.safetensors``; return the file.

    ``model.weights`` takes it where there is no hub. Raises PedfracError where the hub cannot be
    reached, or has no weights of this name.
    """
    try:
        network = timm.create_model(backbone, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise PedfracError(
            f"weights of {backbone} cannot be fetched from the hub ({_short(error)})"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{backbone}.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
    return file


def hub_backbones(config: RetrainConfig) -> dict[str, str]:
    """Return the backbones whose weights come from the hub, by the field that says so."""
    models = {"fracture.model": config.fracture.model, "age.model": config.age.model}
    return {name: one.backbone for name, one in models.items() if one.weights == "hub"}


def unreachable_weights(wanted: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a line for each network whose weights the hub does not give to this machine.

    ``wanted``: pairs of field and backbone, as ``hub_backbones`` has them. What lies in the hub's
    cache here counts as there. Nothing is fetched.
    """
    for name, backbone in wanted:
        published = get_pretrained_cfg(backbone)
        if published is None or not published.hf_hub_id:
            continue  # from an address of its own
        repository, _, named = published.hf_hub_id.partition("@")
        revision = named or None
        if isinstance(try_to_load_from_cache(repository, FILE, revision=revision), str):
            continue
        try:
            get_hf_file_metadata(hf_hub_url(repository, FILE, revision=revision), timeout=PATIENCE)
        except EntryNotFoundError:
            continue  # it has them in another format
        except Exception as error:  # the client's own errors, those of its transport, time-outs
            yield (
                f"{name}.weights is 'hub', and {repository} cannot be reached from here "
                f"({_short(error)}). Where the workers cannot either, every training will fail: "
                f"run 'pedfrac weights FOLDER' where it can be, and set {name}.weights to the file"
            )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
