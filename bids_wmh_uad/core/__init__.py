"""Pure numerics: arrays in, arrays out. No files, BIDS, nipype or logging here."""
