"""Comparisons and analyses of an unlearned network: baselines, pruning, filters, other data; the lesson's checks."""
