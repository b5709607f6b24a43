//! Do the tables and the service keep what they promise, in this process and on this kernel?
