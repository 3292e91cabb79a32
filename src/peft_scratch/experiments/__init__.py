"""The ten runs: profiles, data, base model, one training loop, evaluation, results."""

import warnings

# tqdm says so when Jupyter has no widgets; text bars are what is wanted here anyway.
warnings.filterwarnings("ignore", message="IProgress not found")
