"""The commands of `python -m training`, a function each; its arguments are the options."""
