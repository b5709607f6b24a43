//! Models of every concurrent protocol of daxstore.
