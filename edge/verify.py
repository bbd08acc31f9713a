"""`verify`: whether bundles still answer as they did when they were exported."""

from edge.config import VerifyConfig
from edge.runtime import load
from featherweight.errors import FeatherweightError, UsageError, WeightsError


def verify(config: VerifyConfig) -> list[str]:
    """Returns a line for each bundle.

    Raises:
        UsageError: No bundle is named.
        FeatherweightError: One cannot be loaded, or answers otherwise.
    """
    if not config.weights:
        raise UsageError("give the bundles to verify: folders or .zip files")
    lines = []
    for path in config.weights:
        try:
            texts, largest = load(path).verify()
        except WeightsError as error:  # an answer to the question, and no wrong use
            reason = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise FeatherweightError(reason) from None
        lines.append(f"{path}: {texts} golden texts, largest difference {largest:.1e}")
    return lines
