"""A page in the browser to try trained models on: `peft-scratch app`."""
