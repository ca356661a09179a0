"""Commands in: sources, the consumer loop, and the handler that applies a batch in one transaction."""
