"""Models of things that move: load, sample, train on tensors, evaluate, export, publish."""
