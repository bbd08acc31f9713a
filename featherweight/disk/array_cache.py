"""A file cache for arrays that are slow to compute."""

import logging
from collections.abc import Callable
from pathlib import Path

from featherweight.classifier import FloatArray
from featherweight.disk.atomic import atomic_open

logger = logging.getLogger("featherweight")


def cached_array(path: Path, name: str, make: Callable[[], FloatArray]) -> FloatArray:
    """Returns the array in a cache file, or computes it and writes the file.

    Args:
        path: The safetensors file; its name must identify the inputs of the computation.
        name: Name of the array in the file.
        make: Computes the array.
    """
    import numpy as np
    import safetensors.numpy
    from safetensors import SafetensorError

    if path.is_file():
        try:
            return safetensors.numpy.load(path.read_bytes())[name]
        except (SafetensorError, KeyError):
            logger.warning("%s is damaged: its content is computed again", path)
    values = np.ascontiguousarray(make())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, "wb") as file:
        file.write(safetensors.numpy.save({name: values}))
    return values
