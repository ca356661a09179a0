"""Whether the system works, and what needs a person: what is read, and what it means."""
