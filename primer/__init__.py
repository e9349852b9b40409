"""The spine of Primer: recipes, run folders, documents, progress and the command line."""

__version__ = "0.1.0"
