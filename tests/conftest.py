"""Shared fixtures: fixed seeds, a small data set, a tiny trained run."""

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lstm.config import TrainConfig
from lstm.train import train
from tests.helpers.seeding import untouched_generators

# The same examples in every run, and no failures because a machine is slow.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

TEXTS = {
    "joy": """
        i am so happy today, the sun is out
        best day ever!!! we won the cup
        my sister said yes, happy tears
        what a lovely happy morning with coffee
        laughing so hard with my friends 😂
        we got the flat, i am so glad
        happy birthday to my little brother
        glad to be home with the dog at last
        sooooo happy, the exam is over
        dancing in the kitchen, life is good
        the sun, the sea, a good book, perfect
        she made it home and i am glad
        a good day with good friends
        so glad that the rain is over
        our team won and i am so happy
        good news at last, we are happy
        singing in the car with my sister
        the best coffee and the best friends
        i am glad you came today
        laughing all morning, what a good day
    """,
    "sadness": """
        i miss my dog so much tonight
        crying in the car again, i feel so alone
        nobody came to my birthday, i am sad
        the house is empty and i miss her
        i feel low today 😔 nothing helps
        sad to leave the old house
        lost my job and i feel so empty
        i cried all night, i miss you
        so sad that grandad is gone
        alone again, eating in the dark
        i miss the way things were
        everything feels gray and empty
        my heart is broken and i cried
        sad, tired and alone tonight
        i feel empty since she is gone
        nothing is left, i miss him so
        he is gone and the house is dark
        i cried on the train home, so sad
        feeling low and alone again
        i am sad and i don't know why
    """,
    "anger": """
        why is the bus ALWAYS late, i hate this
        he lied to me again, furious
        stop shouting at me!!! i hate it
        they charged me twice, so angry
        i hate when people cut the queue
        furious with the bank, they lied
        who parked in front of my door again
        angry at the boss, he took my idea
        the noise upstairs makes me so angry
        i hate being ignored, stop it
        my phone got stolen, i am furious
        stop wasting my time!!!
        she broke my bike and lied, so angry
        i am furious, the train is late again
        how dare they, i hate this company
        angry, angry, angry at this queue
        they lied about the price, i hate it
        stop it now or i will shout
        so furious that i could scream
        late again and no sorry, i am angry
    """,
}


def labeled_texts() -> list[tuple[str, str]]:
    return [
        (text.strip(), label)
        for label, block in TEXTS.items()
        for text in block.strip().split("\n")
    ]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    logger = logging.getLogger("featherweight")
    handlers, level = list(logger.handlers), logger.level
    with untouched_generators():
        yield
    # The command line adds a handler for the stderr of this test.
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 36 training, 12 validation and 12 test texts of three labels."""
    folder = tmp_path_factory.mktemp("data") / "moods"
    folder.mkdir()
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": [], "test": []}
    for index, example in enumerate(labeled_texts()):
        split = {3: "validation", 4: "test"}.get(index % 5, "train")
        parts[split].append(example)
    for split, examples in parts.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *examples])
    return folder


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The directory of a finished run with a network of a few hundred parameters."""
    config = TrainConfig(
        data=str(tiny_data),
        output_dir=tmp_path_factory.mktemp("outputs"),
        name="tiny",
        embedding_dim=8,
        hidden_dim=8,
        epochs=2,
        min_steps=1,
        batch_size=8,
        learning_rate=0.03,
        device="cpu",
    )
    # A session fixture runs before the function fixture `seeded`.
    with untouched_generators():
        run, _ = train(config)
    return run.path
