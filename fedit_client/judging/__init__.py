"""A language model as judge of answers: prompts, verdicts that are paid once, and how far it agrees with people."""
