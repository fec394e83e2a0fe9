"""The figures of a run as a page, with charts and advice."""
