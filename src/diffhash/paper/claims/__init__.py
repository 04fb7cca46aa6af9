"""The paper's statements as tests over seeds, and what our rows show besides."""
