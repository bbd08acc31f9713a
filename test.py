"""Show a trained model's quality per class, beside the baselines.

$ python test.py                                     # the newest run, on the data it was trained on
$ python test.py --weights outputs/mine --split validation
$ python test.py --weights outputs/mine --data folder/ --json
"""

import sys

from featherweight.cli import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
