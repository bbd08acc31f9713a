"""Compare transformers with an LSTM: quality per class, milliseconds per batch, size.

$ python test_transformer.py                         # an emotion BERT and the newest LSTM
$ python test_transformer.py --model bert-base-emotion distilbert-emotion --data dair-ai/emotion
$ python test_transformer.py --model outputs/mine --weights outputs/lstm --split validation
$ python test_transformer.py --model bert-base deberta-large --latency_only  # needs no weights
"""

import sys

from featherweight.cli import main

if __name__ == "__main__":
    sys.exit(main(["test_transformer", *sys.argv[1:]]))
