"""Events out: the numbering of the log, and the feeds that publish it to the broker, each with its own cursor."""
