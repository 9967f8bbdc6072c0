"""Benchmarks: side by side in one run, never against a remembered number."""
