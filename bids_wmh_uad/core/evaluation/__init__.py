"""Results against references: overlap, ranking, agreement."""
