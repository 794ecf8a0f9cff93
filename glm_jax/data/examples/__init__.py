"""Examples for tuning: from files to a store of segments, and from the store to rows."""
