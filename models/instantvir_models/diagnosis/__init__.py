"""What is wrong with a video, read off its pictures and off what its codec says."""
