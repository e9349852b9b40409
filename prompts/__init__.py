"""Prompts: forms and audiences as data, and the stream that makes prompt number i from topics and web passages."""
