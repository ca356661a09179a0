"""PostgreSQL and Valkey from wheels: real engines with nothing to install."""
