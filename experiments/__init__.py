"""The command line: configured runs, their results, reports and benchmarks."""
