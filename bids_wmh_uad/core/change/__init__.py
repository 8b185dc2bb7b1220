"""What changed between the sessions of one person: arrays in, arrays out."""
