"""One training loop and one evaluation for every method and library, on the CPU or a GPU."""
