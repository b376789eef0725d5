"""A fleet on one machine: Envoy, replicas and their companions. The server does not know it."""
