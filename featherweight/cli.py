"""The command `featherweight`. Each verb imports its packages only when it is called."""

import json
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from featherweight import flags
from featherweight.config import CompareConfig, EvaluationConfig
from featherweight.errors import (
    FeatherweightError,
    MissingExtraError,
    UsageError,
    first_line,
    quoted,
    shortened,
)
from featherweight.hub.config import PushConfig
from featherweight.prediction.config import PredictConfig
from featherweight.reports.terminal import (
    OneLineFormatter,
    print_error,
    standard_streams,
)

_PACKAGES = ("featherweight", "lstm", "transformer_eval", "compress", "edge")
_EXTRAS = {
    **dict.fromkeys(
        ("accelerate", "bitsandbytes", "emoji", "peft", "sentencepiece", "torchao", "transformers"),
        "transformers",
    ),
    "onnx": "onnx", "optuna": "search", "fastapi": "serve",
    "prometheus_client": "serve", "uvicorn": "serve", "ray": "ray",
}  # fmt: skip
# Exit codes that shells report after Ctrl-C and SIGTERM.
INTERRUPTED = 130
TERMINATED = 143


def train(arguments: Sequence[str]) -> None:
    """Train an LSTM on labeled texts."""
    from lstm.config import PRESETS, TrainConfig

    parser = flags.parser("train", train.__doc__, TrainConfig)
    # A preset changes defaults only, so that explicit flags take precedence.
    without_print = [word for word in arguments if not word.startswith("--print_config")]
    parser.set_defaults(dict(PRESETS[parser.parse_args(without_print).preset]))
    config = flags.read(parser, arguments, TrainConfig)

    from featherweight.reports.reporting import report
    from lstm.train import train as train_lstm

    run, evaluation = train_lstm(config)
    print(report(evaluation))
    print(f"\nrun: {run.path}")


def test(arguments: Sequence[str]) -> None:
    """Evaluate a model and two baselines."""
    config = _parse("test", arguments, EvaluationConfig)

    from compress.lstm.half import temporary_fp16_copy
    from featherweight.reports.reporting import report
    from featherweight.run import newest_run
    from featherweight.test import test as test_weights

    weights = config.weights or newest_run(config.output_dir).path
    with temporary_fp16_copy(weights) as variants:
        result = test_weights(config, weights, variants)
    if config.json:
        print(json.dumps(result.evaluation.to_json()))
    else:
        print(report(result.evaluation, result.others, result.latencies, result.rejected))


def predict(arguments: Sequence[str]) -> None:
    """Classify texts, or each row of a file."""
    config = _parse("predict", arguments, PredictConfig, "texts")

    if config.engine == "ray":
        from edge.cluster import shards

        shards.predict_shards(config)
        return

    from featherweight.prediction import predict

    predict.predict(config)


def compress(arguments: Sequence[str]) -> None:
    """Compress a run and measure what quality it loses."""
    from compress.config import CompressConfig

    config = _parse("compress", arguments, CompressConfig)

    from compress.compress import compress as compress_run

    print(compress_run(config))


def compare(arguments: Sequence[str]) -> None:
    """Compare models: quality, speed and size."""
    config = _parse("compare", arguments, CompareConfig, "weights")

    from featherweight.comparison import compare, text

    record = compare.compare(config)
    print(json.dumps(record) if config.json else text.terminal(record))


def test_transformer(arguments: Sequence[str]) -> None:
    """Compare transformers with an LSTM."""
    from transformer_eval.config import TransformerTestConfig

    config = _parse("test_transformer", arguments, TransformerTestConfig)

    from compress.lstm.half import temporary_fp16_copy
    from featherweight.comparison import text
    from featherweight.reports.reporting import report
    from featherweight.run import newest_lstm
    from transformer_eval.test_transformer import test_transformer as compare_with_lstms

    lstm = config.weights or newest_lstm(config.output_dir)
    lstms = temporary_fp16_copy(lstm) if lstm else nullcontext(list[Path]())
    with lstms as variants:
        record, evaluations = compare_with_lstms(config, [*filter(None, [lstm]), *variants])
    if config.json:
        print(json.dumps(record))
    else:
        print("\n\n".join([*map(report, evaluations), text.terminal(record)]))


def finetune(arguments: Sequence[str]) -> None:
    """Fine-tune one or more transformers."""
    from transformer_eval.config import FinetuneConfig

    config = _parse("finetune", arguments, FinetuneConfig)

    from transformer_eval.finetune import finetune as finetune_model
    from transformer_eval.several_models import run_models

    run_models(config, finetune_model)


def features(arguments: Sequence[str]) -> None:
    """Train a logistic regression on embeddings of a transformer."""
    from transformer_eval.config import FeaturesConfig

    config = _parse("features", arguments, FeaturesConfig)

    from transformer_eval.features import features as features_of_model
    from transformer_eval.several_models import run_models

    run_models(config, features_of_model)


def push(arguments: Sequence[str]) -> None:
    """Upload a run to the Hugging Face Hub."""
    config = _parse("push", arguments, PushConfig)

    from featherweight.hub import push

    print(push.push(config))


def export(arguments: Sequence[str]) -> None:
    """Export a run as a bundle that runs without PyTorch."""
    from edge.config import ExportConfig

    config = _parse("export", arguments, ExportConfig)

    from edge import export

    print(export.export(config))


def verify(arguments: Sequence[str]) -> None:
    """Check that bundles are intact and give the results of their export."""
    from edge.config import VerifyConfig

    config = _parse("verify", arguments, VerifyConfig, "weights")

    from edge import verify

    print("\n".join(verify.verify(config)))


def serve(arguments: Sequence[str]) -> None:
    """Classify texts over HTTP until Ctrl-C."""
    from edge.config import ServeConfig

    config = _parse("serve", arguments, ServeConfig)

    from edge.serving import serve

    serve.serve(config)


VERBS = {
    verb.__name__: verb
    for verb in (
        train, test, predict, compress, compare, finetune, features, test_transformer, push,
        export, verify, serve,
    )
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: The verb and its flags; by default those of the process.

    Returns:
        The exit code: 0, 1 for a failure, 2 for wrong use, 130 after Ctrl-C, 143 after SIGTERM.
    """
    verb, *flags_of_verb = arguments or sys.argv[1:] or ["--help"]
    received: list[int] = []
    try:
        with standard_streams(), _termination_as_interrupt(received):
            _log_to_stderr()
            _run(verb, flags_of_verb)
    except FeatherweightError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or library in _PACKAGES:
            raise
        missing = MissingExtraError(library, _EXTRAS.get(library, "train"))
        return _fail(str(missing), missing.exit_code)
    except KeyboardInterrupt as interrupt:
        hint = f": {interrupt}" if str(interrupt) else ""
        return _fail(f"interrupted{hint}", TERMINATED if received else INTERRUPTED)
    except BrokenPipeError:
        return 0  # the reader has read enough (`| head`)
    except OSError as error:  # e.g. a full disk, a missing permission, a file name too long
        place = shortened(str(error.filename or "output"))
        return _fail(f"{place}: {error.strerror or first_line(error)}", 1)
    return 0


@contextmanager
def _termination_as_interrupt(received: list[int]) -> Iterator[None]:
    """Makes SIGTERM end a command like Ctrl-C, which keeps its state; notes it in `received`."""

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(verb: str, arguments: Sequence[str]) -> None:
    for word in arguments:
        _refuse_undecodable(word)
    if verb in ("-h", "--help"):
        print(_overview())
    elif verb == "--version":
        from featherweight import __version__

        print(f"featherweight {__version__}")
    elif verb in VERBS:
        VERBS[verb](arguments)
    else:
        raise UsageError(f"unknown command {quoted(verb)}: choose from {', '.join(VERBS)}")


def _refuse_undecodable(word: str) -> None:
    """Refuses an argument with bytes that the terminal's encoding does not have."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{quoted(word)} is not UTF-8: set the terminal to UTF-8, for example with "
            "LC_ALL=C.UTF-8, and rename files whose names are in another encoding"
        ) from None


def _parse(
    verb: str, arguments: Sequence[str], config: type[flags.Config], positional: str | None = None
) -> flags.Config:
    parser = flags.parser(verb, VERBS[verb].__doc__, config, positional)
    return flags.read(parser, arguments, config)


def _overview() -> str:
    verbs = "\n".join(f"  {name:<16} {verb.__doc__}" for name, verb in VERBS.items())
    return (
        "usage: featherweight COMMAND [--flags]\n\n"
        "Train small LSTM text classifiers, compress them, and compare them with transformers.\n\n"
        f"commands:\n{verbs}\n\n"
        "Run featherweight COMMAND --help for the flags of a command."
    )


def _log_to_stderr() -> None:
    # On the root logger, where tqdm can redirect lines to keep its bar below them.
    handler = logging.StreamHandler()
    handler.setFormatter(OneLineFormatter())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("featherweight").setLevel(logging.INFO)


def _fail(message: str, code: int) -> int:
    print_error(f"featherweight: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
