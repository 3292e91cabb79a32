"""Each method from scratch is compared with every library that has it: what is equal, what differs.

pairs        what is compared with what
parity       the comparison: logits, loss, gradients, weights after fifty steps, a negative control
proofs       the same for one method, as a table in a notebook
differences  where a library does something else, with the line of its source that shows it
versions     the same methods on two versions of transformers
page         the results as a page, from their JSON alone
ledger       how many parameters each method adds: by hand, on our model, in each library
convert      `.pt` files to and from the adapter folders of the libraries
folders      what those folders hold
card         the model card beside them
push         such a folder to the Hugging Face Hub
t5_configs   the sizes of every T5
"""
