"""What crosses the wire: commands in, events out, and the publisher that an LMS imports."""
