"""The ten runs: profiles, data, base model, one training loop, evaluation, results."""
