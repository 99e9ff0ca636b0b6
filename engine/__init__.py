"""What the entries share: their options, the inference loop, and the training loop."""
