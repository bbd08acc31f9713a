"""Requests to the Hub: timeouts, one-line errors and downloads."""

import re
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from featherweight.errors import FeatherweightError, first_line
from featherweight.weights import file_sha256

T = TypeVar("T")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")
# Seconds until a Hub that does not respond counts as unreachable. The promise is ten, and the user
# has already waited for the import of the libraries.
ANSWER_S = 4.0
METADATA_S = 30.0  # seconds for the ten or so small requests before a download
OFFLINE = "HF_HUB_OFFLINE is set"
_URL = re.compile(r"\w+://\S+")  # may be signed, or contain a password


class Unreachable(Exception):
    """The Hub does not respond or gives no usable response; the message says why."""


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub, and the wording of its error messages."""

    id: str
    noun: str  # "data set" or "model"
    elsewhere: str  # what else the user could have meant by the id; empty if it is from a registry
    instead: str  # what the user can do if the Hub is no help
    error: type[FeatherweightError]

    def request(self, call: Callable[[], T]) -> T:
        """Makes the first, short request to the Hub.

        Raises:
            Unreachable: There is no response within `ANSWER_S`, or no usable one.
            FeatherweightError: There is no such repository or commit, or it requires a login.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError, RevisionNotFoundError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(self.id)
        except HFValidationError:
            raise self._missing() from None
        if constants.HF_HUB_OFFLINE:
            raise Unreachable(OFFLINE)
        try:
            return within(ANSWER_S, call)
        except RevisionNotFoundError:
            raise self.error(
                f"the Hub has {self.id} but not the requested commit: {self.instead}"
            ) from None
        except Exception as error:  # each transport has its own types, a proxy may send any status
            code = status(error)
            if code == 404:
                raise self._missing() from None
            if code in (401, 403):
                raise self._refused() from None
            raise unreachable(error) from None

    def failed(self, error: Exception) -> FeatherweightError:
        """Returns the error to raise if loading fails after the first request."""
        from huggingface_hub import get_token

        code = status(error)
        if code in (401, 403):  # the files may be gated although the page is public
            return self._refused()
        cause = reason(error) if code else f"{type(error).__name__}: {first_line(error)}"
        token = get_token()
        cause = _URL.sub("…", cause.replace(token, "***") if token else cause)
        return self.error(f"{self.id} cannot be loaded from the Hub ({cause}): {self.instead}")

    def not_cached(self, obstacle: Unreachable) -> FeatherweightError:
        """Returns the error to raise if neither the Hub nor the cache has the repository."""
        hint = f" and is not a {self.elsewhere}" if self.elsewhere else ""
        return self.error(f"{obstacle}, and {self.id} is not in the cache{hint}: {self.instead}")

    def _missing(self) -> FeatherweightError:
        if not self.elsewhere:
            return self.error(f"the Hub no longer has the {self.noun} {self.id}: {self.instead}")
        return self.error(
            f"{self.id} is neither a {self.elsewhere} nor a {self.noun} on the Hub: "
            "check the spelling"
        )

    def _refused(self) -> FeatherweightError:
        # The Hub sends 401 both for repositories that do not exist and for private ones.
        return self.error(
            f"the Hub denies access to {self.id}: check the spelling; if it is private or gated, "
            "request access on its page and log in with: hf auth login"
        )


def within(seconds: float, call: Callable[[], T]) -> T:
    """Calls a function in a thread and waits for its result for a limited time.

    The libraries wait and retry for minutes, and their own timeout covers neither the DNS lookup
    nor attempts at a host's other addresses.

    Raises:
        Unreachable: There is no result in time; the call may continue in the background.
        Exception: Whatever the call raises.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except FutureTimeoutError:
        raise Unreachable(f"{_host()} did not respond within {seconds:g} s") from None


def unreachable(error: Exception) -> Unreachable:
    """Returns the `Unreachable` that describes why a request failed."""
    if isinstance(error, Unreachable):
        return error
    return Unreachable(f"{_host()} cannot be reached ({reason(error)})")


def reason(error: Exception) -> str:
    """Returns why a request failed, without messages that may quote a token or a signed URL."""
    if isinstance(error, Unreachable):
        return str(error)
    code = status(error)
    return f"HTTP {code}" if code else type(error).__name__


def status(error: BaseException | None) -> int | None:
    """Returns the HTTP status of an error or of the error that caused it."""
    while error is not None:
        code: int | None = getattr(getattr(error, "response", None), "status_code", None)
        if code is not None:
            return code
        error = error.__cause__ or error.__context__
    return None


def _host() -> str | None:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).hostname  # without the password that a URL may contain


def download(model_id: str, commit: str, file: Any) -> Path:
    """Downloads one file of a model into the cache; a large file shows progress on a terminal.

    Args:
        model_id: The repository.
        commit: Full hash of a commit.
        file: Entry of the repository's file list, with the file's metadata.

    Returns:
        The path in the cache folder of that commit.

    Raises:
        Exception: Whatever the libraries raise.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from tqdm import tqdm

    name = file.rfilename
    cached = try_to_load_from_cache(model_id, name, revision=commit)
    if isinstance(cached, str):
        return Path(cached)
    if file.lfs:
        _fetch_blob(model_id, commit, file)
    silent: Any = partial(tqdm, disable=True)  # the remaining files are small
    return Path(hf_hub_download(model_id, name, revision=commit, tqdm_class=silent))


def _fetch_blob(model_id: str, commit: str, file: Any) -> None:
    """Downloads a large file's content to the path where the library checks before downloading.

    The library itself (huggingface_hub 2) restarts an interrupted download from the beginning.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]
    from tqdm import tqdm

    bar: Any = partial(tqdm, disable=constants.HF_HUB_DISABLE_PROGRESS_BARS or None)
    cache = Path(constants.HF_HUB_CACHE).expanduser()
    folder = repo_folder_name(repo_id=model_id, repo_type="model")
    blob = cache / folder / "blobs" / file.lfs.sha256
    part = blob.with_name(f"{blob.name}.incomplete")
    lock = cache / ".locks" / folder / f"{blob.name}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        with part.open("ab") as content:
            if content.tell() > file.lfs.size:
                content.truncate(0)
            http_get(
                hf_hub_url(model_id, file.rfilename, revision=commit),
                content,
                resume_size=content.tell(),
                headers=build_hf_headers(),
                expected_size=file.lfs.size,
                displayed_filename=file.rfilename,
                tqdm_class=bar,
            )
        if file_sha256(part) != file.lfs.sha256:
            part.unlink()
            raise OSError(f"{file.rfilename} was damaged in transit")
        part.replace(blob)
