"""Cameras that are watched: the latest scene of each, with ids that last from frame to frame."""
