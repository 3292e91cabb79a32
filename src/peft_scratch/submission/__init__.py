"""Checking and packing what is handed in.

Whatever a submission holds was written by someone else. Notebooks are read as JSON, archives in memory,
weight files without torch and without unpickling: nothing is executed or unpacked to the disk.

From Python:

- `check.check(folder_or_files) -> Checked`: the checklist of one submission, in this process;
- `pool.check_all(groups)`: of many, each in a process of its own with limits;
- `pack.pack(output, number, name) -> Packed`: the three files of a run, checked.
"""
