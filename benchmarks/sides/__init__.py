"""What benchmarks run in processes of their own: no benchmarks by themselves."""
