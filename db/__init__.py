"""What is remembered: tables, migrations, and the queries that need care."""
