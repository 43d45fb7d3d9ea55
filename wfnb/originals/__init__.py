"""The networks that are to forget: data sets, architectures, training, weights from elsewhere."""
