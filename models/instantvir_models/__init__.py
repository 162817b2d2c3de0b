"""What restores a video: media, operators, autoencoders, students and the session that joins them."""

__version__ = "0.9.0"
