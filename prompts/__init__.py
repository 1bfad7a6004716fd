"""Judge prompts: one Jinja template per task, with its version in the first line."""
