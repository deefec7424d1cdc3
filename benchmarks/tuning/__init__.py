"""Parameters chosen on validation classes: the same number of trials for every method, never on target test items."""
