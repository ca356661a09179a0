"""What people do: each function changes something and writes the row of the audit in the same transaction."""
