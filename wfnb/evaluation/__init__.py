"""What a network is compared with, and looked into by: baselines, pruning, filters, other data, the lesson's checks."""
