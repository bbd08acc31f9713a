"""The process that predicts batches with a bundle: reads pickles from stdin, writes them to stdout.

The first message has the bundle and the options, each further one a batch. The process ends with
its stdin, so it never outlives its parent.
"""

import os
import pickle
import sys
from contextlib import suppress

from featherweight.loading import load
from featherweight.prediction.workers import BatchPredictor, PredictedBatch


def main() -> None:
    """Writes a result, predictions or an error, for each batch."""
    # Stdout is reserved for results; all other output, also from C code, goes to stderr.
    with os.fdopen(os.dup(1), "wb") as results, suppress(EOFError, BrokenPipeError):
        os.dup2(2, 1)
        bundle, *options = pickle.load(sys.stdin.buffer)
        predictor = BatchPredictor(load(bundle, "cpu"), *options)
        while True:
            batch = pickle.load(sys.stdin.buffer)
            result: PredictedBatch | Exception
            try:
                result = predictor(batch)
            except Exception as error:
                result = error
            pickle.dump(result, results)
            results.flush()
