"""The command line: one file a verb, each importing its floor only when it runs."""
