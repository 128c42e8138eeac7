//! What the tests share: running a future that is ready.

pub(crate) use postwright_testkit::at_once as now;
