"""The MV-Video dataset: schema, shards, readers, loaders, captions, takedowns and releases."""
