"""What weight filtering costs, measured."""
