"""Speed and memory, measured: python -m benchmarks.inference, .training, .long_video. Each prints a table."""
