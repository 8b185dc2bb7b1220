"""The program as functions, for notebooks and scripts; exported lazily by ``bids_wmh_uad`` itself."""
