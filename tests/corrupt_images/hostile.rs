//! Lies with a good seal: what somebody could write who knows the pool's seed.
