"""Arrays that are slow to make, kept in a file named by the content that they follow from."""

import logging
from collections.abc import Callable
from pathlib import Path

from featherweight.classifier import FloatArray
from featherweight.run import atomic_open

logger = logging.getLogger("featherweight")


def cached_array(path: Path, name: str, make: Callable[[], FloatArray]) -> FloatArray:
    """Reads an array, or makes and keeps it where there is none or a damaged one.

    Args:
        path: A safetensors file, whose name says what it was made from.
        name: What the array is called in it.
        make: Makes the array.
    """
    import numpy as np
    import safetensors.numpy
    from safetensors import SafetensorError

    if path.is_file():
        try:
            return safetensors.numpy.load(path.read_bytes())[name]
        except (SafetensorError, KeyError):
            logger.warning("%s is damaged: what it holds is computed anew", path)
    values = np.ascontiguousarray(make())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, "wb") as file:
        file.write(safetensors.numpy.save({name: values}))
    return values
