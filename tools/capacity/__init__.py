"""How many processes, partitions and brokers a load needs, and how much S3 traffic it makes."""
