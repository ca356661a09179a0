"""What happens: rules, commands in, effects out."""
