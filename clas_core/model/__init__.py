"""A language model: where its weights are, how it is opened, which neurons it has."""
