"""Hand-written stand-ins for what tests should not depend on."""
