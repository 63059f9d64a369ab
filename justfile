# Shortcuts; each is a plain command that works without just.

# Build, fetch real models, ingest, heatmap.
demo:
    bash scripts/demo.sh

# All tests.
test *arguments:
    bash scripts/test.sh {{arguments}}

# What CI runs.
ci:
    bash .ci/run

# Write the files of schemas/v1 anew.
bless:
    FILTERDB_BLESS=1 cargo test --release --test it schemas
