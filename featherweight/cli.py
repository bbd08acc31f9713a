"""One command, one subcommand a verb; a package is imported only when its verb is called."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from featherweight import __version__, flags
from featherweight.config import CompareConfig, EvaluationConfig
from featherweight.errors import FeatherweightError, MissingExtraError, UsageError
from featherweight.hub.config import PushConfig
from featherweight.prediction.config import PredictConfig

_OWN = ("featherweight", "lstm", "transformer_eval", "compress", "edge")
_EXTRAS = {
    **dict.fromkeys(
        ("accelerate", "bitsandbytes", "emoji", "peft", "sentencepiece", "torchao", "transformers"),
        "transformers",
    ),
    "onnx": "onnx", "optuna": "search", "fastapi": "serve", "uvicorn": "serve", "ray": "ray",
}  # fmt: skip
INTERRUPTED = 130  # what shells report of a program ended by Ctrl-C


def train(arguments: Sequence[str]) -> None:
    """Train the tiny LSTM on labeled text; leaves a run directory."""
    from lstm.config import PRESETS, TrainConfig

    parser = _parser("train", TrainConfig)
    # A preset only changes defaults, so whatever is said on the command line wins.
    said = [word for word in arguments if not word.startswith("--print_config")]
    parser.set_defaults(dict(PRESETS[parser.parse_args(said).preset]))
    config = flags.read(parser, arguments, TrainConfig)

    from featherweight.reports.reporting import report
    from lstm import train

    run, evaluation = train.train(config)
    print(report(evaluation))
    print(f"\nrun: {run.path}")


def test(arguments: Sequence[str]) -> None:
    """Show a run's quality per class, beside two baselines."""
    config = flags.read(_parser("test", EvaluationConfig), arguments, EvaluationConfig)

    from compress.lstm.half import temporary_fp16_copy
    from featherweight.reports.reporting import report
    from featherweight.run import newest_run
    from featherweight.test import test as test_weights

    weights = config.weights or newest_run(config.output_dir).path
    with temporary_fp16_copy(weights) as variants:
        result = test_weights(config, weights, variants)
    if config.json:
        print(json.dumps(result.evaluation.to_json(), ensure_ascii=False))
    else:
        print(report(result.evaluation, result.others, result.latencies, result.rejected))


def predict(arguments: Sequence[str]) -> None:
    """Answer texts, or every row of a file at constant memory."""
    config = flags.read(_parser("predict", PredictConfig, "texts"), arguments, PredictConfig)

    if config.engine == "ray":
        from edge.cluster import shards

        shards.predict_shards(config)
        return

    from featherweight.prediction import predict

    predict.predict(config)


def compress(arguments: Sequence[str]) -> None:
    """Make a smaller run of a run, and judge what it loses."""
    from compress.config import CompressConfig

    config = flags.read(_parser("compress", CompressConfig), arguments, CompressConfig)

    from compress.compress import compress as compress_one

    print(compress_one(config))


def compare(arguments: Sequence[str]) -> None:
    """Put any contenders side by side: quality, speed, size."""
    config = flags.read(_parser("compare", CompareConfig, "weights"), arguments, CompareConfig)

    from featherweight.comparison import compare, text

    record = compare.compare(config)
    print(json.dumps(record) if config.json else text.terminal(record))


def test_transformer(arguments: Sequence[str]) -> None:
    """Put transformers beside the LSTM: quality, speed, size."""
    from transformer_eval.config import TransformerTestConfig as Config

    config = flags.read(_parser("test_transformer", Config), arguments, Config)

    from compress.lstm.half import temporary_fp16_copy
    from featherweight.comparison import text
    from featherweight.reports.reporting import report
    from featherweight.run import newest_lstm
    from transformer_eval.test_transformer import test_transformer as test_beside_lstms

    lstm = config.weights or newest_lstm(config.output_dir)
    lstms = temporary_fp16_copy(lstm) if lstm else nullcontext(list[Path]())
    with lstms as variants:
        record, answered = test_beside_lstms(config, [*filter(None, [lstm]), *variants])
    if config.json:
        print(json.dumps(record))
    else:
        print("\n\n".join([*map(report, answered), text.terminal(record)]))


def finetune(arguments: Sequence[str]) -> None:
    """Fine-tune transformers on the same splits; leaves runs."""
    from transformer_eval.config import FinetuneConfig

    config = flags.read(_parser("finetune", FinetuneConfig), arguments, FinetuneConfig)

    from transformer_eval.finetune import finetune as finetune_one
    from transformer_eval.several_models import run_models

    run_models(config, finetune_one)


def features(arguments: Sequence[str]) -> None:
    """Fit a logistic regression on a frozen transformer."""
    from transformer_eval.config import FeaturesConfig

    config = flags.read(_parser("features", FeaturesConfig), arguments, FeaturesConfig)

    from transformer_eval.features import features as features_of_one
    from transformer_eval.several_models import run_models

    run_models(config, features_of_one)


def push(arguments: Sequence[str]) -> None:
    """Send a run to the Hub: model card, weights, tokenizer."""
    config = flags.read(_parser("push", PushConfig), arguments, PushConfig)

    from featherweight.hub import push

    print(push.push(config))


def export(arguments: Sequence[str]) -> None:
    """Make a bundle of a run that answers without PyTorch."""
    from edge.config import ExportConfig

    config = flags.read(_parser("export", ExportConfig), arguments, ExportConfig)

    from edge import export

    print(export.export(config))


def verify(arguments: Sequence[str]) -> None:
    """Check that bundles are whole and answer as exported."""
    from edge.config import VerifyConfig

    config = flags.read(_parser("verify", VerifyConfig, "weights"), arguments, VerifyConfig)

    from edge import verify

    print("\n".join(verify.verify(config)))


def serve(arguments: Sequence[str]) -> None:
    """Answer texts over HTTP until Ctrl-C."""
    from edge.config import ServeConfig

    config = flags.read(_parser("serve", ServeConfig), arguments, ServeConfig)

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
        The exit code: 0, 1 for a failure, 2 for wrong use, 130 after Ctrl-C.
    """
    verb, *rest = arguments or sys.argv[1:] or ["--help"]
    _log_to_stderr()
    try:
        if verb in ("-h", "--help"):
            print(_overview())
        elif verb == "--version":
            print(f"featherweight {__version__}")
        elif verb in VERBS:
            VERBS[verb](rest)
        else:
            raise UsageError(f"no verb {verb!r}: choose {', '.join(VERBS)}")
        sys.stdout.flush()
    except FeatherweightError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        if not error.name or error.name.split(".")[0] in _OWN:
            raise
        library = error.name.split(".")[0]
        missing = MissingExtraError(library, _EXTRAS.get(library, "train"))
        return _fail(str(missing), missing.exit_code)
    except KeyboardInterrupt as interrupt:
        resumable = verb in ("train", "finetune")
        hint = str(interrupt) or ("go on with the same command and --resume" if resumable else "")
        return _fail(f"interrupted{f': {hint}' if hint else ''}", INTERRUPTED)
    except BrokenPipeError:
        # The reader left (`| head`); keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        # A full disk, a missing permission, a name too long: the machine says no, and where.
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    return 0


def _parser(verb: str, config: type[Any], positional: str | None = None) -> ArgumentParser:
    return flags.parser(verb, VERBS[verb].__doc__, config, positional)


def _overview() -> str:
    verbs = "\n".join(f"  {name:<16} {verb.__doc__}" for name, verb in VERBS.items())
    return (
        "usage: featherweight VERB [--flags]\n\n"
        "Do I need a transformer here, or will a tiny recurrent model do?\n\n"
        f"verbs:\n{verbs}\n\n"
        "featherweight VERB --help shows the flags of a verb."
    )


def _log_to_stderr() -> None:
    # The root logger, where tqdm can step in to keep its bar below the lines.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("featherweight").setLevel(logging.INFO)


def _fail(message: str, code: int) -> int:
    print(f"featherweight: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
