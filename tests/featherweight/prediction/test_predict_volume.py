"""Large files, predicted by one process per core: killed, resumed, and their memory.

The command runs in a separate interpreter, as it does for a user.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from itertools import cycle, islice
from pathlib import Path

import pytest

from edge.config import ExportConfig
from edge.export import export
from featherweight import load
from featherweight.prediction.streaming import predict_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

TWO_CORES = "import os; os.sched_getaffinity = lambda _: {0, 1}\n"
CHILDREN = """
import signal, subprocess
children = []
init = subprocess.Popen.__init__

def noted(self, *arguments, **options):
    init(self, *arguments, **options)
    children.append(self)

subprocess.Popen.__init__ = noted
"""
DIE = (
    CHILDREN
    + """
from featherweight.prediction import resumable_file
resumable_file._RECORD_SECONDS = 0
record_progress = resumable_file.ResumableFile.record_progress

def dying(self, rows):
    late = self.file.tell() > 1_500_000
    if late and not {recorded}:
        kill()
    record_progress(self, rows)
    if late:
        kill()

def kill():
    print(*[child.pid for child in children], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

resumable_file.ResumableFile.record_progress = dying
"""
)
MEMORY = """
import resource
from pathlib import Path
peak, *children = [
    resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
]
status = Path("/proc/self/status")
if status.exists():  # on Linux, ru_maxrss starts from the peak of the parent, here pytest
    peak = status.read_text().split("VmHWM:")[1].split()[0]
print(peak, *children)
"""
CORE_ONLY = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def bundle(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(ExportConfig(tiny_run, tmp_path_factory.mktemp("bundles") / "bundle"))


def write(path: Path, rows: int, width: int = 190) -> Path:
    """Writes a file with rows of `width` + about ten bytes."""
    texts = ["so happy", "i cried all night", "", "furious with the bank", "we won 😂 " * 5]
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text,note\n")
        for number, text in enumerate(islice(cycle(texts), rows)):
            file.write(f"{number},{text},{'n' * (width - len(text))}\n")
    return path


def predict(
    *arguments: object, before: str = "", after: str = ""
) -> subprocess.CompletedProcess[str]:
    words = ["predict", *map(str, arguments)]
    code = f"import sys\nfrom featherweight.cli import main\ncode = main({words!r})"
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{before}\n{code}\n{after}\nsys.exit(code)"],
        capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
    )  # fmt: skip


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("kind", "recorded"), [("csv", False), ("jsonl", True)], ids=["before record", "after record"]
)
def test_output_resumed_after_a_kill_equals_uninterrupted_output(
    tmp_path: Path, bundle: Path, kind: str, recorded: bool
) -> None:
    path = write(tmp_path / "in.csv", 22_000)
    deque(predict_file(load(bundle), path, tmp_path / f"whole.{kind}"), maxlen=0)
    output = tmp_path / f"out.{kind}"
    flags = ["--weights", bundle, "--csv", path, "--output_path", output]

    killed = predict(*flags, before=TWO_CORES + DIE.format(recorded=recorded))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
    part = tmp_path / f"out.{kind}.part"
    assert 1_500_000 < part.stat().st_size < (tmp_path / f"whole.{kind}").stat().st_size
    with part.open("ab") as file:
        file.write(b"half of a ro")  # as left by a kill during a write

    children = [int(pid) for pid in killed.stdout.split()]
    assert len(children) == 2
    deadline = time.monotonic() + 300
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, children))

    resumed = predict(*flags, "--resume", before=TWO_CORES)
    assert resumed.returncode == 0, resumed.stderr
    assert 0 < int(resumed.stderr.split(" rows predicted")[0].split()[-1]) < 22_000
    assert output.read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.csv",
        output.name,
        f"whole.{kind}",
    ]


def test_memory_does_not_grow_with_the_file(tmp_path: Path, bundle: Path) -> None:
    peaks = []
    for rows in (60_000, 300_000):
        path = write(tmp_path / f"{rows}.csv", rows, width=60)
        done = predict("--weights", bundle, "--csv", path, before=TWO_CORES, after=MEMORY)
        assert done.returncode == 0, done.stderr
        peaks.append([int(kilobytes) for kilobytes in done.stdout.split()])
    for small, large in zip(*peaks, strict=True):
        assert small > 1_000
        assert large - small < 15_000  # kilobytes; the additional rows of the input have 17,000


def test_the_core_package_alone_predicts_files_and_texts(tmp_path: Path, bundle: Path) -> None:
    names = {"datasets", "pandas", "pyarrow", "scipy", "sklearn", "tabulate", "torch"}
    names |= {"nltk", "matplotlib", "safetensors", "statsmodels", "transformers"}
    path = write(tmp_path / "in.csv", 22_000)
    blocked = CORE_ONLY.format(names=names)
    done = predict("--weights", bundle, "--csv", path, before=TWO_CORES + blocked)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    lines = (tmp_path / "in_predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 22_001

    done = predict("so happy", "--weights", bundle, before=blocked)
    assert (done.returncode, done.stderr) == (0, "")
    assert "so happy" in done.stdout
    done = predict("--weights", bundle, "--csv", path, "--output_path", tmp_path / "o.parquet",
                   before=blocked)  # fmt: skip
    assert done.returncode == 1
    assert (
        "pyarrow is not installed; get it with: pip install 'featherweight[train]'" in done.stderr
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "in_predictions.csv"]


def test_a_killed_worker_is_one_line_and_saved_rows_remain(tmp_path: Path, bundle: Path) -> None:
    path = write(tmp_path / "in.csv", 22_000)
    before = (
        CHILDREN
        + """
from featherweight.prediction import resumable_file
resumable_file._RECORD_SECONDS = 0
record_progress = resumable_file.ResumableFile.record_progress

def killing(self, rows):
    record_progress(self, rows)
    for child in children:
        child.send_signal(signal.SIGKILL)

resumable_file.ResumableFile.record_progress = killing
"""
    )
    done = predict("--weights", bundle, "--csv", path, before=TWO_CORES + before)
    assert done.returncode == 1
    saved, failure = done.stderr.splitlines()
    assert "--resume" in saved
    assert failure == "featherweight: a worker process ended with SIGKILL"
    names = ["in.csv", "in_predictions.csv.part", "in_predictions.csv.progress"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
