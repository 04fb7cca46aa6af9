"""The grid operator and its tables; nothing here knows about networks or training."""
