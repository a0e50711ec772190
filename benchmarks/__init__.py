"""Side-by-side measurements: contenders take turns in one run, and what counts is their ratio."""
