"""``python -m index``: the same as ``longplay``."""

import sys

from index.cli import main

sys.exit(main())
