"""`verify`: checks that bundles still give the probabilities they were exported with."""

from edge.config import VerifyConfig
from edge.runtime import load
from featherweight.errors import FeatherweightError, UsageError, WeightsError


def verify(config: VerifyConfig) -> list[str]:
    """Returns one line per bundle.

    Raises:
        UsageError: No bundle is given.
        FeatherweightError: A bundle cannot be loaded or gives other probabilities.
    """
    if not config.weights:
        raise UsageError("give the bundles to verify: folders or .zip files")
    lines = []
    for path in config.weights:
        try:
            num_texts, max_difference = load(path).verify()
        except WeightsError as error:  # the negative result, which exits with 1 and not with 2
            raise FeatherweightError(str(error)) from None
        lines.append(f"{path}: {num_texts} golden texts, largest difference {max_difference:.1e}")
    return lines
