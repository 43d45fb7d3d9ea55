"""Analyses of an unlearned network: baselines, pruning, filters, other data; and the lesson's checks."""
