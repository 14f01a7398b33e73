"""Brings alerts to the person on call, once a cause, until somebody takes them on; emits alerts of its own channels."""
