"""Experiments, the training loop, evaluation, and the commands that run them."""
