-- One row per layer: keys, place, shape, quality, the exact mergeable moments of its raw and scaled filters, and the
-- free metadata of its model. Keys come from the model. Rows of an ingest that was never committed have no model, and
-- fall out of the join.
SELECT
  m.model, m.task, m.data_type,
  l.* EXCEPT (data_id, model, task, data_type),
  m.* EXCEPT (data_id, model, task, data_type, file, sha256, format, producer, n_convolutions, n_layers, n_filters,
              n_nonfinite, extractor, ingested_at)
FROM stored.layers AS l JOIN stored.models AS m ON l.data_id = m.data_id
