"""The heart: when it beats, in which shape, and what conditions make of both."""
