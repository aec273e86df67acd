"""What the commands in scripts/ share; each package bears the name of what it is for."""
