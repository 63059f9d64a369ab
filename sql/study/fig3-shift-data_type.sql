-- Fig 3, data types: how far the filters of models trained on one type of data are from those trained on another.
-- The paper: most types are close, a few stand out (v0.1.0, 15 types: min 0.0108, median 0.239, max 1.466).
--
-- Parameters: none. Filters scaled to a largest absolute weight of 1; one PCA and one range over all filters; 70 bins.
--   To compare within a subset, put the same WHERE into `pca` and `c`.
-- Returns one row per ordered pair, the diagonal included, sorted by mean shift as in the paper:
--   a, b      type of training data
--   shift     D(a, b): symmetric KL divergence of the histograms of PCA coefficients, summed over the components,
--             weighted by explained variance ratio; natural logarithm, no factor 1/2
--   n_a, n_b  filters behind each side; sampling noise alone makes D about 0.5 at 500 filters a side, 0.05 at 4,096
WITH
  pca AS (SELECT pca_fit(filter_scale(weights)) AS fit FROM filters),
  c AS (SELECT data_type, pca_transform(filter_scale(weights), (SELECT fit FROM pca)) AS coef FROM filters),
  r AS (SELECT coef_range(coef) AS range FROM c),
  h AS (SELECT data_type, coef_hist(coef, (SELECT range FROM r)) AS hist FROM c GROUP BY data_type),
  pairs AS (
    SELECT unnest(sym_kl_shift(data_type, hist, (SELECT fit['explained_variance_ratio'] FROM pca))) AS pair FROM h
  ),
  shifts AS (
    SELECT pair['a'] AS a, pair['b'] AS b, pair['shift'] AS shift, pair['n_a'] AS n_a, pair['n_b'] AS n_b FROM pairs
  )
SELECT a, b, shift, n_a, n_b
FROM shifts
ORDER BY avg(shift) OVER (PARTITION BY a), a, avg(shift) OVER (PARTITION BY b), b
