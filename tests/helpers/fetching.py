"""Fetches models in a new process, because the libraries read their environment at import."""

from pathlib import Path
from typing import Any

from tests.helpers.hub_server import SIGNATURE, TOKEN, run

FETCH = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
logging.getLogger("featherweight").setLevel("INFO")
from featherweight.hub import client
from transformer_eval import model_files
outcomes = {}
for name in sys.argv[1:]:
    # Short only for the repository that never responds: the others may be slow on a busy machine.
    client.ANSWER_S = 1.0 if name == "acme/silent" else 60.0
    model_files.ANSWER_S, model_files.METADATA_S = 60.0, 120.0
    try:
        files = model_files.fetch(name)
    except Exception as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    else:
        names = sorted(path.name for path in files.folder.iterdir())
        outcome = {"name": files.name, "folder": str(files.folder), "files": names}
        outcome |= {"revision": files.revision, "known": files.model is not None}
    outcomes[name] = outcome
print(json.dumps(outcomes))
"""
Model = dict[str, bytes]


def fetched(model: str, cache: Path, **settings: str) -> tuple[dict[str, Any], str]:
    outcomes, log = run(FETCH, cache, model, **settings)
    return outcomes[model], log


def assert_fails(outcome: dict[str, Any], expected: str) -> None:
    assert outcome.get("error") == "WeightsError", outcome
    assert expected in outcome["message"]
    assert "\n" not in outcome["message"]
    for secret in (TOKEN, SIGNATURE, "pass-word", "Signature"):
        assert secret not in outcome["message"]
