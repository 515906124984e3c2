"""The live traffic of an attempt: what ranks and Spark tasks say to their driver while they run, and it to them."""
