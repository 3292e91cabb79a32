"""Reviews on their way to the model: from a file to clean text, to tokens, to batches."""
