"""The pipeline of a production guide."""
