"""Poisoned folders: commands import nothing from the current folder, their processes included."""

import random
import re
import signal
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from faults.commands import Arguments
from faults.materials import NAME, Materials
from faults.sweep import Case, Part, Violation, named

# Modules of the standard library, of dependencies and of this project.
_POISONED = (
    "json", "pickle", "csv", "random", "tempfile", "signal", "queue", "logging", "socket", "typing",
    "threading", "subprocess", "sitecustomize", "usercustomize", "numpy", "onnxruntime",
    "tokenizers", "torch", "transformers", "sklearn", "pyarrow", "uvicorn", "ray", "featherweight",
    "lstm", "edge",
)  # fmt: skip
# As the console script: the path is set before anything is imported that is not loaded already.
# Two cores, so that `predict` starts worker processes.
_COMMAND = """
import os, sys
sys.path[:] = [entry for entry in sys.path if entry]
os.sched_getaffinity = lambda _: {0, 1}
from featherweight.cli import main
sys.exit(main(sys.argv[1:]))
"""
_SECONDS = 300.0  # for one command, which imports its libraries and may time models
_SERVE = "serve"


def part(made: Materials, count: int) -> Part:
    """Returns the part: each case runs one command in a poisoned folder."""

    def prepare(folder: Path) -> Case:
        commands = _commands(made, folder / "results")
        (folder / "results").mkdir()
        current, traces = _poisoned(folder)
        for module in ("json", "pickle"):
            subprocess.run([sys.executable, "-c", f"import {module}"], cwd=current, check=True)
        if _imported(traces) != {"json", "pickle"}:
            raise RuntimeError("the folder is not poisonous: this part would show nothing")

        def case(number: int, _: random.Random) -> str:
            for trace in traces.iterdir():
                trace.unlink()
            arguments = [str(argument) for argument in commands[number]]
            with named(" ".join(arguments[:3])):
                (_serve if arguments[0] == _SERVE else _run)(arguments, current)
                if found := _imported(traces):
                    raise Violation(f"imported {', '.join(sorted(found))} of the current folder")
            return "nothing imported"

        return case

    count = min(count, len(_commands(made, Path())))
    return Part("folders", count, prepare, hang_seconds=_SECONDS)


def _commands(made: Materials, results: Path) -> list[Arguments]:
    """Returns every command that computes something, with what makes it start processes."""
    data = ["--data", made.data, "--device", "cpu"]
    once = ["--batch_sizes", 1]
    ray = ["predict", "--engine", "ray", "--weights", made.bundle, "--csv", made.data,
           "--output_path", results / "shards"]  # fmt: skip
    return [
        made.train(results),
        made.finetune(results / "transformer"),
        ["test", "--weights", made.old / "lstm" / NAME, "--device", "cpu"],
        ["predict", "--weights", made.bundle, "--csv", made.many_rows, "--output_path",
         results / "predictions.csv"],
        ["compress", "--weights", made.old / "lstm" / NAME, "--method", "onnx", "--max_f1_drop", 1],
        ["compare", made.bundle, *data, *once, "--output_path", results / "report"],
        ["features", "--model", made.bert, *data, "--output_dir", results / "features",
         "--cache_dir", results / "cache"],
        ["test_transformer", "--model", made.transformer, "--weights", made.bundle, *data, *once],
        made.export(results / "bundle"),
        ["verify", made.bundle],
        [_SERVE, "--weights", made.bundle, "--port", 0],
        *([ray] if find_spec("ray") else []),
    ]  # fmt: skip


def _poisoned(folder: Path) -> tuple[Path, Path]:
    """Writes modules that leave a trace when they are imported.

    Returns:
        Their folder, and the folder of the traces.
    """
    current, traces = folder / "download", folder / "traces"
    current.mkdir()
    traces.mkdir()
    for name in _POISONED:
        trace = str(traces / name)
        (current / f"{name}.py").write_text(f"open({trace!r}, 'w').close()\n", encoding="utf-8")
    return current, traces


def _imported(traces: Path) -> set[str]:
    return {trace.name for trace in traces.iterdir()}


def _run(arguments: list[str], current: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *arguments], cwd=current, capture_output=True, text=True,
        errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        raise Violation(f"failed: {done.stderr.strip().splitlines()[-1:]}")


def _serve(arguments: list[str], current: Path) -> None:
    """Starts the service, sends it a request, and stops it."""
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *arguments], cwd=current, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True
    ) as process:  # fmt: skip
        assert process.stdout
        address = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        if not address:
            raise Violation("the service did not start")
        request = urllib.request.Request(
            f"{address[0]}/predict", b'{"text": "so happy"}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
        process.send_signal(signal.SIGTERM)
