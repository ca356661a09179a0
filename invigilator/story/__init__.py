"""One learner's story in plain words, for whoever has to judge it: on a terminal, and as a page that prints."""
