"""When a run goes in circles, too fast, or nowhere: one rule a module, all pure."""
