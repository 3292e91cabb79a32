"""What the notebooks show, prove on a toy, and how they are executed."""
