"""Views of inputs: their words, their draws by (seed, id, view), and what shows them on tensors."""
