"""A Ray that cannot be used, and failures of Ray as one-line errors."""

import logging
import socket
import sys
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError

import edge.cluster
from edge.cluster.session import cluster
from featherweight.errors import DataError, FeatherweightError, UsageError
from tests.helpers.command_line import Capture, call, error_line


def test_a_missing_ray_is_named_with_its_extra(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("session", "shards"):
        monkeypatch.delitem(sys.modules, f"edge.cluster.{name}", raising=False)
        monkeypatch.delattr(edge.cluster, name, raising=False)
    assert call("predict", "--engine", "ray", "--csv", tmp_path) == 1
    assert error_line(capsys) == (
        "featherweight: ray is not installed; get it with: pip install 'featherweight[ray]'"
    )


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Restores what `cluster` sets for Ray."""
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(logging.getLogger("ray.data"), "level", logging.DEBUG)
    return monkeypatch


@pytest.mark.parametrize("form", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_an_address_where_nothing_listens_is_named(joining: pytest.MonkeyPatch, form: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = form.format(port=unused.getsockname()[1])
    joining.setenv("RAY_ADDRESS", address)
    message = f"RAY_ADDRESS: no cluster at {address} "
    with pytest.raises(UsageError, match=message), cluster("edge.cluster.shards"):
        pytest.fail("it was joined")


def test_an_invalid_address_gives_a_one_line_error(joining: pytest.MonkeyPatch) -> None:
    joining.setenv("RAY_ADDRESS", "nonsense")
    with (
        pytest.raises(FeatherweightError, match=r"^Ray \(nonsense\): [^\n]+$"),
        cluster("edge.cluster.shards"),
    ):
        pytest.fail("it was joined")


def ray_error(message: str, cause: Exception | None = None) -> RayError:
    error = RayError(message)
    error.cause = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ray_error("a task failed", DataError("a.csv is empty\nadvice")), DataError,
         "a.csv is empty"),
        (ray_error("a task failed", OSError(28, "No space left", "advice")), FeatherweightError,
         "Ray failed: OSError: No space left"),
        (ray_error("an actor died:\n  File x\nValueError: bad bundle\n"), FeatherweightError,
         "Ray failed: ValueError: bad bundle"),
        (ray_error("a node died\nadvice"), FeatherweightError, "Ray failed: RayError: a node died"),
    ],
)  # fmt: skip
def test_failures_of_ray_become_one_line(
    monkeypatch: pytest.MonkeyPatch, error: RayError, kind: type[Exception], message: str
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(FeatherweightError) as caught, cluster("edge.cluster.shards"):
        raise error
    assert (type(caught.value), str(caught.value)) == (kind, message)
