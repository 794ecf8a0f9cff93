"""From a config to Batches: the corpus as token stores, and the rows read from them."""
