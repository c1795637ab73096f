"""What the witness's performance claims rest on: `python -m benchmarks.bench`."""
