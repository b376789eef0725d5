"""Live and long audio: one session over as many connections as it takes."""
