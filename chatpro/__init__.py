"""Chat Pro: a metered GPT-4 chat for freelancers. docs/decisions.md says why it is built as it is."""

__version__ = "0.1.0"
