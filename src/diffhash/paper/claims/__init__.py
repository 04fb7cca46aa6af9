"""The paper's statements, and statements about our own rows, as tests over seeds."""
