"""Explaining the bundle with heat maps, as a task."""

import base64

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Prepared
from tasks.training import slug


@task(name="explain bundle", cache_policy=NO_CACHE)
def explain_bundle(config: RetrainConfig, prepared: Prepared, bundle: str, evaluation: str) -> str:
    """Return the key of the explanation; show each age group's montage."""
    key = pipeline.explain_bundle(config, prepared, bundle, evaluation)
    folder = pipeline.store_of(config).get(key).path
    for montage in sorted(folder.glob("*/montage.png")):
        name = montage.parent.name
        picture = base64.b64encode(montage.read_bytes()).decode()
        create_markdown_artifact(
            f"# {name}\n\n![Heat maps of {name}](data:image/png;base64,{picture})",
            key=f"heat-maps-{slug(name)}",
            description=f"Heat maps of test images, {name}",
        )
    return key
