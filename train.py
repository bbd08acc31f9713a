"""Train an LSTM.

$ python train.py                                    # on the bundled corpus
$ python train.py --data dair-ai/emotion             # on a data set from the Hub
$ python train.py --data folder/ --preset classic    # on train, validation and test files
$ python train.py --data texts.csv --text_column tweet --label_column mood
$ python train.py --name mine --resume               # resume an interrupted training
"""

import sys

from featherweight.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
