"""Live audio: windows, voice activity, sessions. Decides what to analyse, and waits for nothing."""
