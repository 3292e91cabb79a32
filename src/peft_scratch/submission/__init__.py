"""Checking and packing what is handed in.

A submission was written by someone else, so nothing in it is executed or unpacked to the disk. Notebooks are
read as JSON, archives in memory, and weight files without torch and without unpickling.

From Python:

- `check.check(folder_or_files) -> Checked`: the checklist of one submission, made in this process;
- `pool.check_all(groups)`: the checklists of many, each made in a process of its own with limits;
- `pack.pack(output, number, name) -> Packed`: checks a run and packs its three files.
"""
