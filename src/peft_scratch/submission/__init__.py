"""Checking and packing what is handed in.

Whatever a submission holds was written by someone else. Notebooks are read as JSON, archives in memory,
and a weight file only if its pickle asks for plain tensors: nothing is executed or unpacked to the disk.
"""
