"""What methods share: blocks, coreset, memory, quantiser, transformers."""
