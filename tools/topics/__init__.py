"""What the scripts that look at topics share: how topics are read, what a dead letter is, how
records are shown.
"""
