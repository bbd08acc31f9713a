"""Structure of the code: direction of imports, no circular imports, folder sizes, verb files."""

import ast
import graphlib
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from featherweight.cli import VERBS

ROOT = Path(__file__).parent.parent
# Packages that each package may import, besides itself.
BELOW = {
    "featherweight": set(),
    "lstm": {"featherweight"},
    "transformer_eval": {"featherweight"},
    "compress": {"featherweight", "lstm", "transformer_eval"},
    "edge": {"featherweight", "lstm", "transformer_eval", "compress"},
}
# These modules may import any package inside functions.
LAZY = {"featherweight.cli", "featherweight.loading"}
# All that the modules of the runtime import, which work without the rest of the project.
RUNTIME = {"edge.runtime", "edge.bundle_files", "edge.contents"}
RUNTIME_IMPORTS = (
    "featherweight.errors.", "featherweight.data.texts.", "featherweight.data.tokenizer_json.",
    "featherweight.data.token_patterns.",
    *(f"{module}." for module in sorted(RUNTIME)),
)  # fmt: skip
MAX_FILES = 16  # Python files directly in a folder

HEAVY = {
    "accelerate", "datasets", "matplotlib", "nltk", "onnxruntime", "pandas", "pyarrow", "ray",
    "scipy", "sklearn", "torch", "transformers",
}  # fmt: skip


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: Path, path: Path) -> Iterator[tuple[int, str, bool]]:
    """Yields line, dotted name and whether it is inside a function, for each import."""
    module = module_name(root, path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[int, str, bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, inside
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}", inside
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield node.lineno, str(name.value), inside
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def violations(root: Path) -> list[str]:
    """Returns a line for each forbidden import; missing packages are skipped."""
    found = []
    for package, below in BELOW.items():
        for path in sorted((root / package).rglob("*.py")):
            module = module_name(root, path)
            for line, target, inside in imports(root, path):
                top = target.split(".")[0]
                if top not in BELOW:
                    continue
                if module in RUNTIME:
                    allowed = f"{target}.".startswith(RUNTIME_IMPORTS)
                elif module in LAZY and inside:
                    allowed = True
                else:
                    allowed = top == package or top in below
                if not allowed:
                    found.append(f"{path.relative_to(root)}:{line} imports {target}")
    return found


def circles(root: Path) -> list[list[str]]:
    """Returns the modules of a circular import, including imports inside functions."""
    paths = {
        module_name(root, path): path
        for package in BELOW
        for path in sorted((root / package).rglob("*.py"))
    }
    arrows = {
        module: {
            found
            for _, target, _ in imports(root, path)
            for found in (target, target.rpartition(".")[0])
            if found in paths and found != module
        }
        for module, path in paths.items()
    }
    sorter = graphlib.TopologicalSorter(arrows)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []


def test_no_import_goes_in_the_wrong_direction() -> None:
    assert violations(ROOT) == []


def test_there_are_no_circular_imports() -> None:
    assert circles(ROOT) == []


def test_circular_import_inside_functions_is_found(tmp_path: Path) -> None:
    (tmp_path / "lstm").mkdir()
    (tmp_path / "lstm" / "one.py").write_text("from lstm.two import x")
    (tmp_path / "lstm" / "two.py").write_text("def f():\n    from lstm import one")
    (circle,) = circles(tmp_path)
    assert set(circle) == {"lstm.one", "lstm.two"}


def test_no_folder_has_too_many_files() -> None:
    folders = [ROOT / "benchmarks", *(ROOT / package for package in BELOW)]
    counts = Counter(path.parent for folder in folders for path in folder.rglob("*.py"))
    assert len(counts) > 15
    assert {folder: count for folder, count in counts.items() if count > MAX_FILES} == {}


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_each_verb_has_its_file(verb: str) -> None:
    (path,) = (path for package in BELOW for path in (ROOT / package).rglob(f"{verb}.py"))
    assert f"def {verb}(" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["lstm", "onnx"])
def test_a_sub_package_does_not_shadow_the_package_of_its_name(package: str) -> None:
    outer, inner = (importlib.import_module(name) for name in (package, f"compress.{package}"))
    assert outer.__file__ != inner.__file__
    for path in (ROOT / "compress").rglob("*.py"):
        assert not any(
            isinstance(node, ast.ImportFrom) and node.level
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        ), f"{path} has a relative import"


def test_checker_reads_existing_modules() -> None:
    # Without modules there would be no violations.
    seen = {
        target
        for path in (ROOT / "featherweight").rglob("*.py")
        for _, target, _ in imports(ROOT, path)
    }
    assert {"featherweight.errors.FeatherweightError", "lstm.train.train"} <= seen


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("featherweight/quality/evaluation.py", "import lstm"),
        ("featherweight/quality/evaluation.py", "from lstm.encoder import LSTMEncoder"),
        ("featherweight/quality/evaluation.py", "def f():\n    from lstm import encoder"),
        ("featherweight/quality/evaluation.py", "if TYPE_CHECKING:\n    import compress.int8 as x"),
        (
            "featherweight/quality/evaluation.py",
            "import importlib\nimportlib.import_module('lstm.config')",
        ),
        ("featherweight/cli.py", "from lstm import train"),
        ("featherweight/loading.py", "class A:\n    import lstm.classifier"),
        ("featherweight/deep/cli.py", "def f():\n    import lstm"),
        ("lstm/encoder.py", "import transformer_eval.registry"),
        ("lstm/encoder.py", "def f():\n    import compress"),
        ("transformer_eval/classifier.py", "from lstm import batching"),
        ("transformer_eval/__init__.py", "import numpy, edge"),
        ("compress/lstm/half.py", "from edge.export import export"),
        ("edge/runtime.py", "import featherweight"),
        ("edge/runtime.py", "from featherweight import load"),
        ("edge/runtime.py", "from featherweight.errorsome import x"),
        ("edge/runtime.py", "from edge import export"),
        ("edge/contents.py", "from edge.packing import packed"),
        ("edge/bundle_files.py", "from featherweight.run import Run"),
        ("edge/runtime.py", "from . import export"),
        ("edge/runtime.py", "def f():\n    from .export import export"),
    ],
)
def test_checker_finds_a_violation(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)

    (found,) = violations(tmp_path)

    assert found.startswith(f"{file}:")


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "featherweight/quality/evaluation.py",
            "from featherweight import errors\nfrom ..run import Run",
        ),
        ("featherweight/cli.py", "def train():\n    from lstm import train"),
        ("featherweight/loading.py", "def load():\n    if x:\n        import edge.runtime"),
        ("lstm/encoder.py", "import torch\nfrom featherweight.classifier import Classifier"),
        ("lstm/encoder.py", "from .config import ModelConfig\nfrom . import batching"),
        ("compress/int8.py", "import lstm.encoder\nimport transformer_eval.classifier"),
        ("edge/export.py", "import compress\nfrom edge.runtime import load"),
        ("edge/runtime.py", "import numpy\nfrom featherweight.errors import WeightsError"),
        ("edge/runtime.py", "from featherweight import errors"),
    ],
)
def test_checker_accepts_allowed_imports(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(source)

    assert violations(tmp_path) == []


def loaded_after(code: str) -> set[str]:
    """Returns the heavy packages that a fresh interpreter has loaded after some code."""
    tail = "import sys; print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True
    )
    return HEAVY & set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import featherweight",
        "from featherweight import load, run_inference, FeatherweightError",
        "import featherweight.config, compress, compress.config",
        "import transformer_eval, transformer_eval.config, transformer_eval.registry",
        "from featherweight.cli import main; main(['--help'])",
        "from featherweight.cli import main; main(['no-such-verb'])",
    ],
)
def test_command_line_loads_nothing_heavy(code: str) -> None:
    assert loaded_after(code) == set()


def test_help_of_verbs_does_not_load_torch() -> None:
    code = f"""
from featherweight.cli import main
for verb in {sorted(VERBS)}:
    try:
        main([verb, "--help"])
    except SystemExit:
        pass
"""
    assert loaded_after(code) & {"accelerate", "torch", "transformers"} == set()
