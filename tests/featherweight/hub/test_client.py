"""Data sets of the Hub over real HTTP, from a small server at HF_ENDPOINT.

The libraries read their environment at import, so each environment is a separate process that
loads several data sets and prints the outcomes.
"""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.data.dataset import DataConfig, load_dataset
from featherweight.errors import DataError, MissingExtraError
from featherweight.hub import client
from tests.helpers.hub_server import COMMIT, TOKEN, FakeHub, Repository, run, serve

TEXTS = [f"text {i}" for i in range(12)]
LABELS = [0, 1, 2] * 4

LOADER = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
logging.getLogger("featherweight").setLevel("INFO")
import datasets
datasets.config.USE_PARQUET_EXPORT = False  # it would query a second host
from featherweight.hub import client
from featherweight.data import hub_dataset
from featherweight.data.dataset import DataConfig, load_dataset
outcomes = {}
for name in sys.argv[1:]:
    # Short only without a response: a busy machine may need the time for the others.
    client.ANSWER_S = 1.0 if name == "acme/silent" else 60.0
    hub_dataset.ANSWER_S = 60.0
    hub_dataset.METADATA_S = 2.0 if name == "acme/stalls" else 120.0
    try:
        data = load_dataset(DataConfig(data=name))
    except Exception as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    else:
        outcome = {"name": data.name, "labels": data.labels}
        outcome |= {s.name: [s.texts, s.labels.tolist()] for s in data.splits}
    outcomes[name] = outcome
print(json.dumps(outcomes))
"""

Outcomes = dict[str, dict[str, Any]]


def with_split_column() -> bytes:
    splits = ["train", "dev", "train", "test"] * 3
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS, "label": LABELS, "split": splits}), buffer)
    return buffer.getvalue()


def parquet(labels: list[int], class_names: list[str] | None) -> bytes:
    kind = {"names": class_names, "_type": "ClassLabel"} if class_names else None
    features = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": kind or {"dtype": "int64", "_type": "Value"},
    }
    table = pa.table({"text": TEXTS[: len(labels)], "label": pa.array(labels, pa.int64())})
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(note), buffer)
    return buffer.getvalue()


NAMED = parquet(LABELS, ["sad", "glad", "mad"])
REPOSITORIES = {
    "acme/moods": {"train.parquet": NAMED, "validation.parquet": NAMED, "test.parquet": NAMED},
    "acme/train-only": {"train.parquet": parquet(LABELS, None)},
    "acme/unlabelled": {
        "train.parquet": NAMED,
        "test.parquet": parquet([-1, -1], ["sad", "glad", "mad"]),
    },
    "acme/one-split": {"train.parquet": with_split_column()},
    "acme/test-only": {"test.parquet": NAMED},
    "acme/empty": {},
    "acme/damaged": {"train.parquet": NAMED[:100] + b"?" * 100},
    "acme/gated": {"train.parquet": NAMED},
    "acme/stalls": {"train.parquet": NAMED},
    "acme/configured": {
        "README.md": b"---\nconfigs:\n"
        b"- config_name: raw\n  data_files: raw.parquet\n"
        b"- config_name: simple\n  data_files: simple.parquet\n---\n",
        "raw.parquet": NAMED,
        "simple.parquet": parquet(LABELS, None),
    },
}
CHOSEN = [
    "acme/configured:simple",
    f"acme/configured:raw@{COMMIT}",
    "acme/configured:other",
    "acme/moods@v9",
]
STATUSES = {"acme/private": 401, "acme/forbidden": 403, "acme/busy": 503}


@pytest.fixture(scope="module")
def played() -> Iterator[FakeHub]:
    hub = FakeHub(
        repositories={name: Repository(files) for name, files in REPOSITORIES.items()},
        statuses=STATUSES,
        silent={"acme/silent"},
        stalls={"acme/stalls"},
        gated={"acme/gated"},
    )
    with serve(hub):
        yield hub


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def online(cache: Path, played: FakeHub) -> tuple[Outcomes, str]:
    names = (
        *REPOSITORIES, *CHOSEN, *STATUSES, "acme/gone", "gone", "acme/not--valid", "acme/silent"
    )  # fmt: skip
    return run(LOADER, cache, *names, HF_ENDPOINT=played.endpoint)


@pytest.fixture(scope="module")
def unreachable(cache: Path, online: tuple[Outcomes, str]) -> tuple[Outcomes, str]:
    # Nothing listens on port 1; no message may repeat the password.
    names = ("acme/moods", "acme/never")
    return run(LOADER, cache, *names, HF_ENDPOINT="http://user:pass-word@127.0.0.1:1")


@pytest.fixture(scope="module")
def offline(cache: Path, online: tuple[Outcomes, str]) -> tuple[Outcomes, str]:
    return run(LOADER, cache, "acme/moods", "acme/never", HF_HUB_OFFLINE="1")


def assert_is_moods(outcome: dict[str, Any]) -> None:
    assert outcome["name"] == "moods"
    assert outcome["labels"] == ["sad", "glad", "mad"]
    for split in ("train", "validation", "test"):
        assert outcome[split] == [TEXTS, LABELS]


def test_a_data_set_comes_with_its_splits_and_class_names(online: tuple[Outcomes, str]) -> None:
    assert_is_moods(online[0]["acme/moods"])


def test_a_test_split_without_labels_is_set_aside(online: tuple[Outcomes, str]) -> None:
    outcome = online[0]["acme/unlabelled"]
    assert outcome["labels"] == ["sad", "glad", "mad"]
    assert "test" not in outcome


def test_a_split_column_is_used(online: tuple[Outcomes, str]) -> None:
    outcome = online[0]["acme/one-split"]
    assert [len(outcome[split][0]) for split in ("train", "validation", "test")] == [6, 3, 3]


def test_a_configuration_and_a_commit_are_chosen(online: tuple[Outcomes, str]) -> None:
    simple, raw = (online[0][name] for name in CHOSEN[:2])
    assert (simple["name"], simple["labels"]) == ("configured-simple", ["0", "1", "2"])
    assert (raw["name"], raw["labels"]) == ("configured-raw", ["sad", "glad", "mad"])


def test_a_login_is_used(online: tuple[Outcomes, str], played: FakeHub) -> None:
    assert f"Bearer {TOKEN}" in {request.authorization for request in played.requests}


def test_without_validation_and_class_names(online: tuple[Outcomes, str]) -> None:
    outcomes, log = online
    outcome = outcomes["acme/train-only"]
    assert outcome["labels"] == ["0", "1", "2"]
    assert "test" not in outcome
    assert len(outcome["train"][0]) == 9
    assert sorted(outcome["train"][0] + outcome["validation"][0]) == sorted(TEXTS)
    assert "train-only has no validation split: 3 of its 12 training texts are held out" in log


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme/gone", "acme/gone is neither a local file or folder nor a data set on the Hub"),
        ("gone", "gone is neither a local file or folder nor a data set on the Hub"),
        ("acme/not--valid", "acme/not--valid is neither a local file or folder nor a data set"),
        ("acme/private", "log in with: hf auth login"),
        ("acme/forbidden", "log in with: hf auth login"),
        ("acme/busy", "127.0.0.1 cannot be reached (HTTP 503), and acme/busy is not in the"),
        ("acme/silent", "127.0.0.1 did not respond within 1 s, and acme/silent is not in the"),
        ("acme/stalls", "127.0.0.1 did not respond within 2 s, and acme/stalls is not in the"),
        ("acme/test-only", "acme/test-only has no train split on the Hub"),
        ("acme/empty", "acme/empty cannot be loaded from the Hub (EmptyDatasetError: "),
        ("acme/damaged", "acme/damaged cannot be loaded from the Hub ("),
        ("acme/gated", "hf auth login"),
        (
            "acme/configured",
            "acme/configured has several configurations: give one of acme/configured:raw, "
            "acme/configured:simple",
        ),
        ("acme/configured:other", "give one of acme/configured:raw, acme/configured:simple"),
        ("acme/moods@v9", "the Hub has acme/moods but not the requested commit"),
    ],
)
def test_an_unavailable_data_set(online: tuple[Outcomes, str], name: str, expected: str) -> None:
    outcome = online[0][name]
    assert outcome["error"] == "DataError"
    assert expected in outcome["message"]
    assert "\n" not in outcome["message"]


def test_the_first_response_has_a_short_timeout(
    online: tuple[Outcomes, str],
) -> None:
    assert "did not respond within 1 s" in online[0]["acme/silent"]["message"]
    assert client.ANSWER_S <= 4


def test_an_unreachable_hub_is_replaced_by_the_cache(unreachable: tuple[Outcomes, str]) -> None:
    outcomes, log = unreachable
    assert_is_moods(outcomes["acme/moods"])
    assert "127.0.0.1 cannot be reached (" in log
    assert "acme/moods is read from the cache" in log


def test_an_unreachable_hub_is_an_error_within_seconds(unreachable: tuple[Outcomes, str]) -> None:
    outcome = unreachable[0]["acme/never"]
    assert outcome["error"] == "DataError"
    assert "127.0.0.1 cannot be reached" in outcome["message"]
    for instead in ("--data bundled", "a folder or a file", "the cache"):
        assert instead in outcome["message"]
    assert "pass-word" not in outcome["message"] + unreachable[1]


def test_offline_the_cache_is_used_and_nothing_else(offline: tuple[Outcomes, str]) -> None:
    outcomes, log = offline
    assert_is_moods(outcomes["acme/moods"])
    assert "HF_HUB_OFFLINE is set: acme/moods is read from the cache" in log
    assert outcomes["acme/never"]["error"] == "DataError"
    assert "HF_HUB_OFFLINE is set" in outcomes["acme/never"]["message"]
    assert "--data bundled" in outcomes["acme/never"]["message"]


def test_the_hub_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        MissingExtraError, match=r"datasets .* pip install 'featherweight\[train\]'"
    ):
        load_dataset(DataConfig(data="acme/moods"))


def test_neither_datasets_nor_pyarrow_is_imported_for_a_text_file(tmp_path: Path) -> None:
    rows = "".join(f"t{i},{i % 2}\n" for i in range(40))
    (tmp_path / "a.csv").write_text("text,label\n" + rows)
    program = (
        "import sys; from featherweight.data.dataset import DataConfig, load_dataset; "
        "load_dataset(DataConfig(data='a.csv')); "
        "print({'datasets', 'pyarrow', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("data", ["acme/moods.csv", "acme/moods/more", "-x", "acme/mo ods"])
def test_a_path_is_not_a_hub_id(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featherweight.data.sources.load_hub", None)
    with pytest.raises(DataError, match="no such file"):
        load_dataset(DataConfig(data=data))
