"""The same events on two planes, and whether what came of them is the same."""
