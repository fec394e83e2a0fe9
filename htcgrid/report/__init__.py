"""What a run has come to, as a page: figures are aggregated, charts drawn, advice given."""
