"""The original networks: data sets, architectures, training, and weights from elsewhere."""
