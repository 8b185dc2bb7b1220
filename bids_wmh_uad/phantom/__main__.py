"""``python -m bids_wmh_uad.phantom OUT``."""

import sys

from bids_wmh_uad.phantom.dataset import main

if __name__ == "__main__":
    sys.exit(main())
