"""peft-scratch: fine-tune T5 on IMDB four ways, from scratch and through the libraries."""

import warnings

# tqdm says so when Jupyter has no widgets; text bars are what is wanted here anyway.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
