"""Generated from protos/speechemotion/v1 by generate_stubs.py; do not edit."""
