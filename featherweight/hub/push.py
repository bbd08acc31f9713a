"""`push`: a finished run -> a repository on the Hub, in one commit, without what is private."""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

from tabulate import tabulate

from featherweight.errors import FeatherweightError, UsageError, WeightsError
from featherweight.hub.card import ADAPTER, PICTURES, hub_card
from featherweight.hub.client import ANSWER_S, METADATA_S, status, within
from featherweight.hub.config import PushConfig
from featherweight.run import (
    CONFIG,
    MODEL,
    ONNX,
    ONNX_FACTS,
    ONNX_MODEL,
    TRANSFORMER,
    Run,
    kind,
    newest_run,
)

Files = Mapping[str, Path | bytes]  # name in the repository -> what is there

REPOSITORY = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?/(?=.{1,96}$)\w(?:[\w.-]*\w)?", re.ASCII)
# Named one by one: a folder of transformers may also hold pickles, programs and logs.
_TRANSFORMER_FILES = (
    CONFIG, "model*.safetensors", "model.safetensors.index.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "bpe.codes", "*.model",
)  # fmt: skip
_WITH_PATHS = (CONFIG, "tokenizer_config.json", "adapter_config.json")


def push(config: PushConfig) -> str:
    """Puts a run on the Hub, or with `dry_run` shows what would go there.

    Returns:
        A table of the files, and what became of them.

    Raises:
        UsageError: No repository or finished run is named, nobody is logged in, or the login may
            not write there.
        WeightsError: Files of the run are missing or damaged.
        FeatherweightError: The Hub cannot be reached, or does not take the files.
    """
    _check_repository(config.repo_id)
    run = Run(config.weights) if config.weights else newest_run(config.output_dir)
    files = contents(run, config.repo_id, config.license)
    sizes = {name: _size(file) for name, file in files.items()}
    rows = [(name, f"{size:,}") for name, size in sizes.items()]
    rows.append(("total", f"{sum(sizes.values()):,}"))
    align = ("left", "right")
    table = tabulate(rows, ["file", "bytes"], colalign=align, disable_numparse=True)
    if config.dry_run:
        return f"{table}\n\n{config.repo_id}: nothing was sent"
    return f"{table}\n\npushed to {config.repo_id}, commit {_send(files, config)[:8]}"


def contents(run: Run, repo_id: str, license: str = "") -> Files:
    """Returns the files of a repository: those of the run that others need, free of local paths.

    Args:
        run: A finished run of either kind, or a variant of one.
        repo_id: Where they go, "owner/name"; the card says how to load them from there.
        license: Identifier for the card, such as "mit"; empty: none.

    Raises:
        UsageError: It is no finished run.
        WeightsError: Files of it are missing or damaged.
    """
    _check_finished(run)
    if kind(run.read_json(CONFIG)) == "features":
        raise UsageError(f"{run.path} is a head for a frozen encoder, of no use without it: push a "
                         "fine-tuned run")  # fmt: skip
    files = _model_files(run)
    files["evaluation.json"] = _existing(run, "evaluation.json")
    files |= {name: run.file(name) for name in PICTURES if run.file(name).is_file()}
    files["README.md"] = hub_card(run, repo_id, license, files).encode()
    return files


def _model_files(run: Run) -> dict[str, Path | bytes]:
    """Returns what is needed to load a run's model, laid out so that `load` and others find it."""
    if run.exported:
        folder = run.file(ONNX)
        names = (ONNX_MODEL, ONNX_FACTS, "labels.json", *_TRANSFORMER_FILES)
        exported = {f"{ONNX}/{name}": it for name, it in _found(folder, names).items()}
        return {CONFIG: _without_paths(run, CONFIG), **exported}
    folder = run.file(TRANSFORMER)
    if folder.is_dir():
        adapter = _found(folder / ADAPTER, ("adapter_config.json", "*.safetensors"))
        beside = {f"{ADAPTER}/{name}": it for name, it in adapter.items()}
        return _found(folder, _TRANSFORMER_FILES) | beside
    return {
        MODEL: run.file(MODEL),
        CONFIG: _without_paths(run, CONFIG),
        "labels.json": _existing(run, "labels.json"),
    }


def _found(folder: Path, names: Sequence[str]) -> dict[str, Path | bytes]:
    """Returns the files of a folder that match one of the patterns, free of local paths."""
    return {
        path.name: _without_paths(Run(folder), path.name) if path.name in _WITH_PATHS else path
        for path in sorted(path for name in names for path in folder.glob(name))
    }


def _check_repository(repo_id: str) -> None:
    # The Hub's own rules; it would tell only after the log-in.
    if not REPOSITORY.fullmatch(repo_id) or re.search(r"--|\.\.|\.git$", repo_id):
        said = f"{repo_id!r} is no repository" if repo_id else "no repository is named"
        raise UsageError(f"{said}: give --repo_id owner/name")


def _check_finished(run: Run) -> None:
    if not run.file(CONFIG).is_file():
        raise UsageError(f"{run.path} is not a run directory: give one with --weights")
    if run.cut_off:
        raise UsageError(f"{run.path} was cut off in training: finish it with --resume")
    if not run.finished:
        if run.exported:
            raise WeightsError(f"{run.file(ONNX)} has no {ONNX_MODEL}: export it again")
        weights = run.file(TRANSFORMER) if run.file(TRANSFORMER).is_dir() else run.path
        raise WeightsError(f"{weights} has no {MODEL}: train again, or finish it with --resume")


def _existing(run: Run, name: str) -> Path:
    run.read_json(name)  # raises where it is missing or damaged
    return run.file(name)


def _without_paths(run: Run, name: str) -> bytes:
    """Returns a JSON object in which each absolute path has become its last part."""
    values = run.read_json(name)
    if not isinstance(values, dict):
        raise WeightsError(f"{run.file(name)} is no JSON object: train again")
    for key, value in values.items():
        # This class takes apart the paths of every system: a run may have moved between two.
        if isinstance(value, str) and PureWindowsPath(value).root:
            values[key] = PureWindowsPath(value).name
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _send(files: Files, config: PushConfig) -> str:
    """Sends files in one commit, so that a repository holds all of them or none.

    Returns:
        The commit's id.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    # The library's notes on second attempts quote signed addresses.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    _check_login()
    api = HfApi()
    repo_id = config.repo_id
    # Not False: an organization may have made private what its members do not make public.
    private = config.private or None
    try:
        within(METADATA_S, lambda: api.create_repo(repo_id, private=private, exist_ok=True))
        if private and not within(METADATA_S, lambda: api.model_info(repo_id)).private:
            raise UsageError(
                f"{repo_id} is there already and public: make it private in its settings first, "
                "or leave out --private"
            )
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        return api.create_commit(repo_id, operations, commit_message="Push a run").oid
    except FeatherweightError:
        raise
    except Exception as error:
        raise _failed(config, error) from None


def _check_login() -> None:
    """Asks the Hub whose token it is: at once known are a Hub out of reach and a bad log-in."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import LocalTokenNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set: unset it to push, or see --dry_run")
    host = urlsplit(constants.ENDPOINT).hostname  # without a password that a URL may hold
    try:
        within(ANSWER_S, HfApi().whoami)
    except FutureTimeoutError:
        raise FeatherweightError(
            f"{host} does not answer within {ANSWER_S:g} s: nothing was sent, try again later"
        ) from None
    except LocalTokenNotFoundError:
        raise UsageError("nobody is logged in to the Hub: log in with: hf auth login") from None
    except Exception as error:
        if status(error) in (401, 403):
            raise UsageError(
                "the Hub does not accept your token: log in anew with: hf auth login"
            ) from None
        why = f"it answers {status(error)}" if status(error) else type(error).__name__
        raise FeatherweightError(
            f"{host} cannot be reached ({why}): nothing was sent, try again later"
        ) from None


def _failed(config: PushConfig, error: Exception) -> FeatherweightError:
    """Says why; never in the words of an HTTP error, which may quote a token or a signed URL."""
    code = status(error)
    if code in (401, 403):
        return UsageError(
            f"your token may not write to {config.repo_id}: name a repository of your own with "
            "--repo_id, or log in with a token that may write: hf auth login"
        )
    if code == 400 and config.license:  # the card is judged before anything is sent
        return UsageError(
            f"the Hub refuses the model card: does it know a --license {config.license}?"
        )
    why = f"the Hub answers {code}" if code else type(error).__name__
    if isinstance(error, FutureTimeoutError):
        why = f"the Hub stalls for {METADATA_S:g} s"
    return FeatherweightError(
        f"the push to {config.repo_id} failed ({why}); it takes all files or none: push again"
    )
