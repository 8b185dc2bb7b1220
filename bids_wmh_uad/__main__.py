"""``python -m bids_wmh_uad``."""

import sys

from bids_wmh_uad.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
