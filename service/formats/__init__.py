"""Forms of an answer besides the service's own, one module each."""
