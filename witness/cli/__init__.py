"""The command line; composition happens here and nowhere else."""
