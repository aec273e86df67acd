"""The software bill of materials."""
