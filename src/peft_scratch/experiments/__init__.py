"""The ten runs: from the choice of a profile to the JSON of a result."""
