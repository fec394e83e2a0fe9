"""The loop between a source, a plane and a sink: receive, invoke, put, ack."""
