"""Comparisons as people read them: tables now, figures and a page to come."""
