"""The observer `prometheus`: metrics of htcgrid for Prometheus."""
