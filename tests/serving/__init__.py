"""MAX's OpenAI endpoint with this package: scripted models in process, and the real server with the demo model."""
