"""What is built from all the rest at build time: settings, scores, card, benches."""
