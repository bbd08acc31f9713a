"""Ray as the command starts and ends it, in an interpreter of its own; and where it cannot."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cluster.session import cluster
from featherweight.errors import FeatherweightError, UsageError

MAIN = "import sys; from featherweight.cli import main; sys.exit(main(sys.argv[1:]))"
NO_RAY = f"import sys; sys.modules['ray'] = None\n{MAIN}"


def predict(*arguments: object, code: str = MAIN) -> subprocess.CompletedProcess[str]:
    environment = {name: it for name, it in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-c", code, "predict", "--engine", "ray", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def test_a_broken_shard_is_the_one_line_of_the_command(tmp_path: Path, exported: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.csv").write_text("id,text\n1,so happy\n")
    broken = tmp_path / "shards" / "b.csv"
    broken.write_text("id,text\n1,so happy\n2\n")
    done = predict("--csv", tmp_path / "shards", "--weights", exported)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"featherweight: {broken}, line 3: 1 field(s), but the header has 2")
    assert sorted(it.name for it in tmp_path.iterdir()) == ["shards"]


def test_without_ray_its_extra_is_named(tmp_path: Path) -> None:
    done = predict("--csv", tmp_path, code=NO_RAY)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "featherweight: ray is not installed; get it with: pip install 'featherweight[ray]'\n"
    )


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    # What is set for Ray is given back.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_BACKEND_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(logging.getLogger("ray.data"), "level", logging.DEBUG)
    return monkeypatch


@pytest.mark.parametrize("form", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_cluster_that_does_not_answer_is_named(joining: pytest.MonkeyPatch, form: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(port=free.getsockname()[1])
    joining.setenv("RAY_ADDRESS", address)
    said = f"RAY_ADDRESS: no cluster answers at {address} "
    with pytest.raises(UsageError, match=said), cluster("edge.cluster.shards"):
        pytest.fail("it was joined")


def test_an_address_that_is_none_is_one_line(joining: pytest.MonkeyPatch) -> None:
    joining.setenv("RAY_ADDRESS", "nonsense")
    with (
        pytest.raises(FeatherweightError, match=r"^Ray \(nonsense\): [^\n]+$"),
        cluster("edge.cluster.shards"),
    ):
        pytest.fail("it was joined")
