"""One step of the tree engine: sequences, packed batches, and the forwards that run them."""
