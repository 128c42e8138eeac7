//! How pages shorten the paths of tests.

/// docs/faults.md's short forms, and the folders that they stand for.
pub(crate) const SHORT: &[(&str, &str)] = &[
    ("mta/", "examples/reference-mta/tests/"),
    ("proto/", "smtp-proto/tests/"),
    ("server/", "smtp-server/tests/"),
    ("client/", "smtp-client/tests/all/"),
    ("queue/", "queue/tests/"),
    ("dkim/", "dkim/tests/"),
    ("spf/", "spf-dmarc/tests/"),
    ("bounce/", "bounce/tests/"),
    ("shaping/", "shaping/tests/"),
    ("core/", "core/tests/"),
    ("pipeline/", "mta/tests/"),
];
