"""The command line: `lamina VERB`."""
