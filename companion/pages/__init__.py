"""What the pages of the book compute and draw from recorded runs and the paper's numbers."""
