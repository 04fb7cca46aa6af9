"""The grid operator and its tables; nothing here depends on networks or training."""
