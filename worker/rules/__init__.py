"""What the domain decides. Pure: standard library and plain words only; time and chance are arguments."""
