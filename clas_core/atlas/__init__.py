"""What every neuron does in every language: measured once, kept, sorted by thresholds."""
