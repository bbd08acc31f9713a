"""Evaluate a trained model and two baselines: quality per class.

$ python test.py                                     # the newest run, on its own data
$ python test.py --weights outputs/mine --split validation
$ python test.py --weights outputs/mine --data folder/ --json
"""

import sys

from featherweight.cli import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
