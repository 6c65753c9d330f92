"""The whole of it in order: params.yaml, the stages, and what runs them; the only room that knows all the knobs."""
