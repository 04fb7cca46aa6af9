"""The report: one HTML page, and one in Markdown, of all that the records say."""
