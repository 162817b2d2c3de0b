"""What is live: capture, bounded delay, recovery, and the numbers of a stream that never ends.

What listens while it runs is in `serve`.
"""
