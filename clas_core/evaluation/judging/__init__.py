"""Whether steering helps: conditions on items, statistics, sweeps."""
