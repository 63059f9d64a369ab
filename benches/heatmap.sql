-- The shift between every two tasks: three scans of `filters` (fit, range, histograms).
WITH pca AS (SELECT pca_fit(filter_scale(weights)) AS fit FROM filters),
     c   AS (SELECT task, pca_transform(filter_scale(weights), (SELECT fit FROM pca)) AS coef FROM filters),
     r   AS (SELECT coef_range(coef) AS range FROM c),
     h   AS (SELECT task, coef_hist(coef, (SELECT range FROM r)) AS hist FROM c GROUP BY task)
SELECT unnest(sym_kl_shift(task, hist, (SELECT fit['explained_variance_ratio'] FROM pca))) AS pair FROM h;
