"""Where this package meets others: one optional dependency, one file."""
