"""The pages, one module each; `console.routes` finds them. What each has to declare stands there."""
