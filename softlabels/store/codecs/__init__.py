"""How logits are stored: from tensors to columns of a shard, and back to `Logits`."""
