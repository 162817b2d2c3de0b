"""What runs: the session, the pipeline of a file, and the clock and threads under both."""
