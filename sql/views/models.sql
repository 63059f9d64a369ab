-- One row per model: keys, free metadata, source file, checksum, format, producer, counts.
SELECT * EXCEPT (data_id) FROM stored.models
