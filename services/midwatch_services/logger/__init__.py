"""Watches every run event and alert; emits nothing: what it keeps is the run log, which the others read."""
