"""Parts of the demo beside its story: the stage, the refusals, the report."""
