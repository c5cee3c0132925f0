"""Training of the zoo's models on the cluster."""
