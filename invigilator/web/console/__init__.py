"""The console: pages for people who operate the system, beside the API."""
