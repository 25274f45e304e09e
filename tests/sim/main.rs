//! A whole cluster in one thread, under faults, with one seed deciding everything.

mod batch;
mod invariants;
mod observe;
