"""Topic seeds: what the textbooks are about, as data, with loading, drawing, searching and auditing."""

from topics.seeds import BUILT_IN, FIELDS_FOLDER, KINDS, LEVELS, Topic, field_names, load_topics

__all__ = ["BUILT_IN", "FIELDS_FOLDER", "KINDS", "LEVELS", "Topic", "field_names", "load_topics"]
