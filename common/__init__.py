"""The parts that the two services and the scripts share."""
