"""The student edition: the assignment with blanks, made from the solution, and its checks."""
