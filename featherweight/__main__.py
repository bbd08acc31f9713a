"""`python -m featherweight`."""

import sys

from featherweight.cli import main

sys.exit(main())
