"""Train the tiny LSTM.

$ python train.py                                    # the corpus that ships with the project
$ python train.py --data dair-ai/emotion             # a data set of the Hub
$ python train.py --data folder/ --preset classic    # train, validation and test files
$ python train.py --data texts.csv --text_column tweet --label_column mood
$ python train.py --name mine --resume               # go on after a kill
"""

import sys

from featherweight.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
