"""Programs of Maven Central on this machine: their jars, and the Java that runs them."""
