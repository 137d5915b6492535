"""Networks: encoder → backbone → decoder, and the cells they are made of. Knows nothing of data, tasks or training."""
