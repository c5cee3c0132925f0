"""Models of things that move: load, sample, train on tensors, evaluate, export, publish.

The package is in place; its first models are to come.
"""
