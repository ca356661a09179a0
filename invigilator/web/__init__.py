"""What is reached over HTTP: the API. It needs the extra [web]."""
