"""Other servers with the same null model. Each runs in a virtual environment of its own."""
