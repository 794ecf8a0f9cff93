"""The Transformer (`transformer`), its parameters (`params`) and published models (`variants`)."""
