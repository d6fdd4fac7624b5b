"""The benchmarks of tools/benchmark.py, one in each module."""
