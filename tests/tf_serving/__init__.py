"""What stands in for TensorFlow Serving in tests: `server.py`."""
