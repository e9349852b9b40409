"""Topic seeds: what the textbooks are about, as data, with loading and auditing."""

from topics.audit import Finding, audit
from topics.seeds import FIELDS_FOLDER, KINDS, LEVELS, Topic, field_names, load_topics, seed_file

__all__ = ["FIELDS_FOLDER", "KINDS", "LEVELS", "Finding", "Topic", "audit", "field_names", "load_topics", "seed_file"]
