"""Topics as commands read and write them: records, consumer groups, and command-line options."""
