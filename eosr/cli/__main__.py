"""``python -m eosr.cli``: the command `eosr`."""

import sys

from eosr.cli import main

sys.exit(main())
