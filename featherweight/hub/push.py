"""`push`: a finished run -> a repository on the Hub, in one commit, without private data."""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from featherweight.errors import FeatherweightError, UsageError, WeightsError, quoted, shortened
from featherweight.hub.card import ADAPTER, PICTURES, TEST_EVALUATION, hub_card
from featherweight.hub.client import ANSWER_S, METADATA_S, reason, status, unreachable, within
from featherweight.hub.config import PushConfig
from featherweight.run import (
    CONFIG,
    EVALUATION,
    MODEL,
    ONNX,
    ONNX_FACTS,
    ONNX_MODEL,
    TRANSFORMER,
    Run,
    kind,
    newest_run,
    without_folders,
)

Files = Mapping[str, Path | bytes]  # by name in the repository

REPOSITORY = re.compile(r"[A-Za-z0-9](?:[\w.-]*\w)?/(?=.{1,96}$)\w(?:[\w.-]*\w)?", re.ASCII)
# An explicit list: a folder of transformers may also contain pickles, programs and logs.
_TRANSFORMER_FILES = (
    CONFIG, "model*.safetensors", "model.safetensors.index.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "bpe.codes", "*.model",
)  # fmt: skip
_WITH_PATHS = (CONFIG, "tokenizer_config.json", "adapter_config.json")


def push(config: PushConfig) -> str:
    """Uploads a run to the Hub, or with `dry_run` lists its files.

    Returns:
        A table of the files, and the result.

    Raises:
        UsageError: No repository or finished run is given, or the user is not logged in or may
            not write to the repository.
        WeightsError: Files of the run are missing or damaged.
        FeatherweightError: The Hub cannot be reached or rejects the files.
    """
    _check_repository(config.repo_id)
    run = Run(config.weights) if config.weights else newest_run(config.output_dir)
    files = contents(run, config.repo_id, config.license)
    sizes = {name: _size(file) for name, file in files.items()}
    sizes["total"] = sum(sizes.values())
    rows = [(name, f"{size:,}") for name, size in sizes.items()]
    align = ("left", "right")
    table = tabulate(rows, ["file", "bytes"], colalign=align, disable_numparse=True)
    if config.dry_run:
        return f"{table}\n\n{config.repo_id}: nothing was sent"
    return f"{table}\n\npushed to {config.repo_id}, commit {_send(files, config)[:8]}"


def contents(run: Run, repo_id: str, license: str = "") -> Files:
    """Returns the files to publish, without local paths.

    Args:
        run: A finished run of either kind, or a variant of one.
        repo_id: The target "owner/name"; the card shows how to load the model from there.
        license: Identifier for the card, such as "mit", or "".

    Raises:
        UsageError: The run is not finished.
        WeightsError: Files of the run are missing or damaged.
    """
    _check_finished(run)
    if kind(run.read_json(CONFIG)) == "features":
        raise UsageError(
            f"{run.path} contains only the head of a frozen encoder: push a fine-tuned run"
        )
    files = _model_files(run)
    files[EVALUATION] = _existing(run, EVALUATION)
    if run.file(TEST_EVALUATION).is_file():
        files[TEST_EVALUATION] = _existing(run, TEST_EVALUATION)
    files |= {name: run.file(name) for name in PICTURES if run.file(name).is_file()}
    files["README.md"] = hub_card(run, repo_id, license, files).encode()
    return files


def _model_files(run: Run) -> dict[str, Path | bytes]:
    """Returns the files of a run's model, with the names that `load` and other libraries expect."""
    if run.exported:
        names = (ONNX_MODEL, ONNX_FACTS, "labels.json", *_TRANSFORMER_FILES)
        exported = _matching(run.file(ONNX), names, f"{ONNX}/")
        return {CONFIG: _without_paths(run, CONFIG), **exported}
    folder = run.file(TRANSFORMER)
    if folder.is_dir():
        adapter = ("adapter_config.json", "*.safetensors")
        return _matching(folder, _TRANSFORMER_FILES) | _matching(
            folder / ADAPTER, adapter, f"{ADAPTER}/"
        )
    return {
        MODEL: run.file(MODEL),
        CONFIG: _without_paths(run, CONFIG),
        "labels.json": _existing(run, "labels.json"),
    }


def _matching(folder: Path, patterns: Sequence[str], prefix: str = "") -> dict[str, Path | bytes]:
    """Returns the files of a folder that match a pattern, without local paths."""
    return {
        prefix + path.name: _without_paths(Run(folder), path.name)
        if path.name in _WITH_PATHS
        else path
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern))
    }


def _check_repository(repo_id: str) -> None:
    # The rules of the Hub, which would report a violation only after the login.
    if not REPOSITORY.fullmatch(repo_id) or re.search(r"--|\.\.|\.git$", repo_id):
        raise UsageError(
            f"--repo_id {quoted(repo_id)} is not a repository: give --repo_id owner/name"
        )


def _check_finished(run: Run) -> None:
    if not run.file(CONFIG).is_file():
        raise UsageError(f"{run.path} is not a run directory: give one with --weights")
    if run.cut_off:
        raise UsageError(f"the training of {run.path} is incomplete: finish it with --resume")
    if not run.finished:
        if run.exported:
            raise WeightsError(f"{run.file(ONNX)} has no {ONNX_MODEL}: export it again")
        weights = run.file(TRANSFORMER) if run.file(TRANSFORMER).is_dir() else run.path
        raise WeightsError(f"{weights} has no {MODEL}: train again, or finish it with --resume")


def _existing(run: Run, name: str) -> Path:
    run.read_json(name)  # raises if it is missing or damaged
    return run.file(name)


def _without_paths(run: Run, name: str) -> bytes:
    """Returns a JSON object with each absolute path replaced by its last part."""
    values = run.read_json(name)
    if not isinstance(values, dict):
        raise WeightsError(f"{run.file(name)} is not a JSON object: train again")
    values = {key: without_folders(value) for key, value in values.items()}
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _send(files: Files, config: PushConfig) -> str:
    """Uploads files in one commit, hence all of them or none, and returns the commit's id."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    # The library's log lines about retries quote signed URLs.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    _check_login()
    api = HfApi()
    repo_id = config.repo_id
    # None instead of False: an organization may make new repositories private by default.
    private = config.private or None
    try:
        within(METADATA_S, lambda: api.create_repo(repo_id, private=private, exist_ok=True))
        if private and not within(METADATA_S, lambda: api.model_info(repo_id)).private:
            raise UsageError(
                f"{repo_id} already exists and is public: make it private in its settings first, "
                "or omit --private"
            )
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        return api.create_commit(repo_id, operations, commit_message="Push a run").oid
    except FeatherweightError:
        raise
    except Exception as error:
        raise _failed(config, error) from None


def _check_login() -> None:
    """Requests the name of the token's user, which fails early if the Hub or the token does."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import LocalTokenNotFoundError

    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set: unset it to push, or use --dry_run")
    try:
        within(ANSWER_S, HfApi().whoami)
    except LocalTokenNotFoundError:
        raise UsageError("you are not logged in to the Hub: log in with: hf auth login") from None
    except Exception as error:
        if status(error) in (401, 403):
            raise UsageError(
                "the Hub rejects your token: log in again with: hf auth login"
            ) from None
        raise FeatherweightError(
            f"{unreachable(error)}: nothing was sent, try again later"
        ) from None


def _failed(config: PushConfig, error: Exception) -> FeatherweightError:
    code = status(error)
    if code in (401, 403):
        return UsageError(
            f"your token may not write to {config.repo_id}: give a repository of your own with "
            "--repo_id, or log in with a token that has write access: hf auth login"
        )
    if code == 400 and config.license:  # the card is validated before anything is uploaded
        return UsageError(
            f"the Hub rejects the model card: check the identifier of --license "
            f"{shortened(config.license)}"
        )
    return FeatherweightError(
        f"the push to {config.repo_id} failed ({reason(error)}); "
        "a push publishes all files or none: push again"
    )
