"""The embedded world alone: what happens there, how it is told, and its model's training."""
