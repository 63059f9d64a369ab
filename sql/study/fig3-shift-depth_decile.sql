-- Fig 3, depth: how far the filters of one tenth of the networks' depth are from those of another.
-- The paper: the distribution of filters changes along the depth of a network.
--
-- Parameters: none. Filters scaled to a largest absolute weight of 1; one PCA and one range over all filters; 70 bins.
--   To compare within a subset, put the same WHERE into `pca` and `c`.
-- Returns one row per ordered pair, the diagonal included, in order of depth:
--   a, b      depth decile: 0 is the tenth of a network next to its input, 9 the tenth next to its output
--   shift     D(a, b): symmetric KL divergence of the histograms of PCA coefficients, summed over the components,
--             weighted by explained variance ratio; natural logarithm, no factor 1/2
--   n_a, n_b  filters behind each side; sampling noise alone makes D about 0.5 at 500 filters a side, 0.05 at 4,096
WITH
  pca AS (SELECT pca_fit(filter_scale(weights)) AS fit FROM filters),
  c AS (SELECT depth_decile, pca_transform(filter_scale(weights), (SELECT fit FROM pca)) AS coef FROM filters),
  r AS (SELECT coef_range(coef) AS range FROM c),
  h AS (SELECT depth_decile, coef_hist(coef, (SELECT range FROM r)) AS hist FROM c GROUP BY depth_decile),
  pairs AS (
    SELECT unnest(sym_kl_shift(depth_decile, hist, (SELECT fit['explained_variance_ratio'] FROM pca))) AS pair FROM h
  ),
  shifts AS (
    SELECT pair['a'] AS a, pair['b'] AS b, pair['shift'] AS shift, pair['n_a'] AS n_a, pair['n_b'] AS n_b FROM pairs
  )
SELECT a, b, shift, n_a, n_b
FROM shifts
ORDER BY a, b
