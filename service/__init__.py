"""The HTTP service and its command line: a photo goes in, the scene comes out as JSON."""
