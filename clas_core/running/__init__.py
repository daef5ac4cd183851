"""What a steered model does: texts, likelihoods, hidden states, and how they differ."""
