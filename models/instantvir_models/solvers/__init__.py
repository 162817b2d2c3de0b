"""From a measurement to the clean video and its uncertainty: solvers, amortised and classical."""
