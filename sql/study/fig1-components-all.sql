-- Fig 1, whole set: the principal components of all filters, as 3x3 images.
-- The paper: a few components carry most of the variance (v1.0.0: 0.398, 0.183, 0.117, 0.099, ... 0.024 of it).
--
-- Parameters: none. Filters are scaled to a largest absolute weight of 1. For the components of a subset, add a WHERE.
-- Returns nine rows, in decreasing order of variance:
--   component                 0 to 8, the paper's v_0 to v_8
--   explained_variance_ratio  its share of the variance
--   w0 .. w8                  its image, row by row; the sign makes the entry of largest absolute value positive
WITH
  pca AS (SELECT pca_fit(filter_scale(weights)) AS fit FROM filters),
  ranks AS (SELECT fit, unnest(range(1, 10)) AS i FROM pca),
  components AS (
    SELECT i - 1 AS component, fit['explained_variance_ratio'][i] AS explained_variance_ratio, fit['components'][i] AS w
    FROM ranks
  )
SELECT
  component, explained_variance_ratio,
  w[1] AS w0, w[2] AS w1, w[3] AS w2, w[4] AS w3, w[5] AS w4, w[6] AS w5, w[7] AS w6, w[8] AS w7, w[9] AS w8
FROM components
ORDER BY component
