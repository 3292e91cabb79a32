"""Each method from scratch against every library that has it: equal, or different and said how.

pairs        what is compared with what, and how the weights of the one map to the other's
parity       the comparison: logits, loss, gradients, weights after fifty steps, a negative control
differences  where a library does otherwise, with the line of its source that shows it
page         the results as a page, from their JSON alone
"""
