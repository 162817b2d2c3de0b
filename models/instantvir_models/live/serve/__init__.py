"""What listens while a stream runs: the page, the control socket and the metrics."""
