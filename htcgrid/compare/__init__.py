"""The same events on two planes, and whether their outcomes are the same."""
