"""Tasks, scoring and statistics: whether steering helps."""
