"""Every system side by side on the same clips, measurements and prior: what runs, what came out."""
