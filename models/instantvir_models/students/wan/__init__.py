"""The full-size student: a causal Wan2.1 transformer between the two halves of an autoencoder."""
