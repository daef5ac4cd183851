"""How to steer: methods, the plans that they compile to, recipes, and plans baked into weights."""
