"""From the data set to packs: the steps before any training, in order."""

from prefect import flow
from pydantic import BaseModel, ConfigDict

from flows.infrastructure.forms import Settings
from pedfrac import pipeline
from pedfrac.config.retrain import RetrainConfig
from pedfrac.pipeline.keys import Prepared
from tasks.cohort import select_cohort
from tasks.packing import pack_images
from tasks.records import read_records
from tasks.splitting import split_patients


class Counted(BaseModel):
    """Keys of the data set as read, and of the images that take part."""

    model_config = ConfigDict(frozen=True)
    records: str
    cohort: str


@flow(name="records")
def cohort(config: Settings) -> Counted:
    """Read and check the data set and count the cohort; return the keys."""
    records = read_records(config)
    return Counted(records=records, cohort=select_cohort(config, records))


@flow(name="split")
def split(config: Settings) -> str:
    """Divide the patients of the cohort; return the key of the split."""
    return split_patients(config, select_cohort(config, read_records(config)))


@flow(name="pack")
def pack(config: Settings) -> Prepared:
    """Prepare everything that trainings need; return the keys."""
    return prepare(config)


def prepare(config: RetrainConfig, *, age_pack: bool = True) -> Prepared:
    """Run the steps before training inside a flow; existing artifacts are not made again.

    Without ``age_pack`` the images are not yet packed for the age classifier, which nothing but its
    own training and what comes after needs; under which key they will lie is known.
    """
    records = read_records(config)
    selected = select_cohort(config, records)
    pack_age = pack_images if age_pack else pipeline.pack_key
    return Prepared(
        records=records,
        cohort=selected,
        split=split_patients(config, selected),
        fracture_pack=pack_images(config, records, config.fracture.model),
        age_pack=pack_age(config, records, config.age.model),
    )
