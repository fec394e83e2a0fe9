"""What has failed: in groups of a kind, and to be run again."""
