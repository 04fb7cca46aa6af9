"""The report: one HTML page with all results of the records."""
